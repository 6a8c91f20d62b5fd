# Understudy's three processes in one image: the command says which.
FROM node:22-slim AS build
WORKDIR /understudy
ENV ONNXRUNTIME_NODE_INSTALL=skip
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY . .
RUN npx tsc -p . && node dist/workers/workflow-bundle.js && npm prune --omit=dev --no-audit --no-fund

FROM node:22-slim
WORKDIR /understudy
ENV NODE_ENV=production KAFKAJS_NO_PARTITIONER_WARNING=1
COPY --from=build /understudy ./
RUN install -d -o node -g node /var/lib/understudy/cells
USER node
ENTRYPOINT ["node", "--enable-source-maps"]
CMD ["dist/cli/understudy.js", "--help"]
