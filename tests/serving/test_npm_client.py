"""The server as OpenAI's client for Node meets it; NODE_PATH names the folder in which that is installed."""

import json
import shutil
import subprocess

import pytest
from PIL import Image

from clients import KEY, data_url, opened

SCRIPT = """
const { OpenAI, toFile } = require("openai");
const [url, key, image, mask] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0 });
const file = async (data, name) => toFile(Buffer.from(data.split(",")[1], "base64"), name, { type: "image/png" });
(async () => {
  const out = {};
  out.models = (await client.models.list()).data.map(each => each.id);
  const messages = [{ role: "user", content: [
    { type: "image_url", image_url: { url: image } }, { type: "text", text: "What is this?" }] }];
  const ask = { model: "tiny", messages, max_tokens: 6, seed: 1 };
  const whole = (await client.chat.completions.create(ask)).choices[0].message;
  out.whole = [whole.content, (whole.images ?? []).map(each => each.image_url.url)];
  out.streamed = ["", []];
  for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
    out.streamed[0] += chunk.choices[0]?.delta.content ?? "";
    out.streamed[1].push(...(chunk.choices[0]?.delta.images ?? []).map(each => each.image_url.url));
  }
  out.drawn = (await client.images.generate({ model: "tiny", prompt: "a dog", seed: 5 })).data[0].b64_json;
  const edit = { model: "tiny", prompt: "a cat", seed: 5,
                 image: await file(image, "image.png"), mask: await file(mask, "mask.png") };
  out.edited = (await client.images.edit(edit)).data[0].b64_json;
  const tools = [{ type: "image_generation", partial_images: 1 }];
  const drawing = { model: "tiny", input: "Draw: a dog.", max_output_tokens: 6, seed: 1, tools, stream: true };
  const events = [];
  for await (const event of await client.responses.create(drawing)) events.push(event);
  out.events = events.map(event => event.type);
  out.output = events.at(-1).response.output.map(item => item.type);
  try { await client.chat.completions.create({ ...ask, logit_bias: { 1: 1 } }); }
  catch (error) { out.refused = [error.status, error.param]; }
  process.stdout.write(JSON.stringify(out));
})();
"""
NODE = shutil.which("node")


def has_client():
    return NODE and not subprocess.run([NODE, "-e", "require('openai')"], capture_output=True).returncode


@pytest.mark.skipif(not has_client(), reason="there is no npm client openai here")
def test_the_npm_client_is_answered_as_the_python_client_is(address, model, tmp_path):
    (tmp_path / "client.cjs").write_text(SCRIPT)
    mask = Image.new("RGBA", (32, 32), "black")
    mask.paste((0, 0, 0, 0), (0, 0, 16, 32))
    command = [
        NODE,
        tmp_path / "client.cjs",
        "http://{}:{}/v1".format(*address),
        KEY,
        data_url(),
        data_url(mask),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    assert out["models"] == ["tiny"]
    assert out["streamed"] == out["whole"]
    assert opened(out["drawn"]).tobytes() == model.generate("a dog", seed=5)[0].tobytes()
    red = Image.new("RGB", (32, 32), "red")
    assert opened(out["edited"]).tobytes() == model.edit(red, "a cat", mask=mask, seed=5)[0].tobytes()
    assert out["events"][0] == "response.created"
    assert "response.image_generation_call.partial_image" in out["events"]
    assert "image_generation_call" in out["output"]
    assert out["refused"] == [400, "logit_bias"]
