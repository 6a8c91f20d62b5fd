/** The Kafka topics the lab's producers write to; the settings' defaults read them. */
export const otlpTopic = 'understudy.telemetry.otlp';
export const jsonTopic = 'understudy.telemetry.json';
