/** What a container engine sends of a container's output is read frame by frame. */
import { expect } from 'chai';
import { withoutFrames } from '../../cells/docker-logs';

const frame = (stream: number, text: string) => {
  const head = Buffer.alloc(8);
  head[0] = stream;
  head.writeUInt32BE(Buffer.byteLength(text), 4);
  return Buffer.concat([head, Buffer.from(text)]);
};

describe('The output of a container', () => {
  it('is put together from both streams', () => {
    expect(withoutFrames(Buffer.concat([frame(1, 'starting\n'), frame(2, 'no such port é\n')]))).to.equal(
      'starting\nno such port é\n',
    );
  });

  it('is taken as it is where it has no frames, and as far as it came', () => {
    expect(withoutFrames(Buffer.from('plain words'))).to.equal('plain words');
    expect(withoutFrames(frame(1, 'cut off').subarray(0, 11))).to.equal('cut');
    expect(withoutFrames(Buffer.alloc(0))).to.equal('');
  });
});
