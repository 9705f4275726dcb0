"""Writes a tiny llama model with random weights in the GGUF format, so that a real engine runs on any machine.

Usage: make_model.py OUTPUT.gguf

Nothing is downloaded and the file is the same on every run. The model knows no language, but it is shaped so that tests
read well and take a predictable time:

* Its vocabulary holds every byte, so that any prompt can be encoded and a grammar (JSON schema) can be satisfied, and a
  few words, which are what it says when it is left alone. A prompt has about one token per character.
* Which tokens it prefers is set by hand. The first dimension of every embedding is a large constant that no layer
  writes to (the first row of each output projection is zero), so the first column of the output matrix works as a bias
  per token: words are likely, bytes and the end of text practically never come. An answer therefore always runs to its
  `max_tokens`, and a request with a large limit is a request that runs for long.
* It has a few more and wider layers than it needs: a prompt of several thousand tokens keeps the engine busy for
  seconds, long enough for a client to leave before the first word.
"""

import os
import sys

import gguf
import numpy as np

WIDTH = 256
LAYERS = 4
HEADS = 4
FEED_FORWARD = 1024
CONTEXT = 16384  # what the model claims to be trained for; the engine decides what it really offers

WORDS = "a and the to of in is it at gate toll road stream token cost key model answer hello world".split()
LETTERS = "abcdefghijklmnopqrstuvwxyz.,!?"
SPACE = "\u2581"  # how a SentencePiece vocabulary writes a space

CONSTANT = 4.0  # the first dimension of every embedding; the other dimensions are noise of a twentieth
LIKELY, UNLIKELY = 0.0, -4.0  # the first column of the output matrix, per token

# Tools are listed up front and called as `<tool_call>{"name": …, "arguments": …}</tool_call>`, a format that the engine
# reads off the template. Its grammar for `tool_choice: "required"` still allows words before the call; the opening mark is
# one token, so that a request can demand it at once: `"logit_bias": {"<tool_call>": 80}`.
CALL = "<tool_call>"
CHAT_TEMPLATE = """\
{%- if tools %}tools: {{ tools | tojson }}
{% endif %}
{%- for message in messages %}{{ message['role'] }}: {{ message['content'] or '' }}
{%- for call in message['tool_calls'] or [] -%}
<tool_call>{"name": "{{ call['function']['name'] }}", "arguments": {{ call['function']['arguments'] | tojson }}}</tool_call>
{%- endfor %}
{% endfor %}
{%- if add_generation_prompt %}assistant:{% endif %}"""


def vocabulary():
    """Token texts with their types; the first three are the special ones, as every llama model has them."""
    special = [("<unk>", gguf.TokenType.UNKNOWN), ("<s>", gguf.TokenType.CONTROL), ("</s>", gguf.TokenType.CONTROL)]
    raw = [(f"<0x{byte:02X}>", gguf.TokenType.BYTE) for byte in range(256)]
    pieces = [SPACE] + [SPACE + word for word in WORDS] + list(LETTERS)
    return special + raw + [(CALL, gguf.TokenType.USER_DEFINED)] + [(piece, gguf.TokenType.NORMAL) for piece in pieces]


def write(path):
    tokens = vocabulary()
    normal = [index for index, (_, kind) in enumerate(tokens) if kind == gguf.TokenType.NORMAL]
    spoken = [index for index in normal if len(tokens[index][0]) > 1]
    scores = [0.0] * len(tokens)
    for rank, index in enumerate(normal):
        scores[index] = -1.0 - rank  # an earlier piece wins when a text can be cut in several ways

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tollgate-test")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_scores(scores)
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)  # else the engine cannot match a grammar with the `assistant:` it put in the prompt
    writer.add_chat_template(CHAT_TEMPLATE)

    random = np.random.default_rng(seed=4)

    def noise(*shape):
        return (random.standard_normal(shape) * 0.05).astype(np.float32)

    embedding = noise(len(tokens), WIDTH)
    embedding[:, 0] = CONSTANT
    output = noise(len(tokens), WIDTH)
    output[:, 0] = UNLIKELY
    output[spoken, 0] = LIKELY
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        writer.add_tensor(block + "attn_norm.weight", np.ones(WIDTH, np.float32))
        writer.add_tensor(block + "ffn_norm.weight", np.ones(WIDTH, np.float32))
        for part in ("attn_q", "attn_k", "attn_v"):
            writer.add_tensor(f"{block}{part}.weight", noise(WIDTH, WIDTH))
        writer.add_tensor(block + "ffn_gate.weight", noise(FEED_FORWARD, WIDTH))
        writer.add_tensor(block + "ffn_up.weight", noise(FEED_FORWARD, WIDTH))
        for part, inputs in (("attn_output", WIDTH), ("ffn_down", FEED_FORWARD)):
            projection = noise(WIDTH, inputs)
            projection[0, :] = 0.0
            writer.add_tensor(f"{block}{part}.weight", projection)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = sys.argv[1]
    unfinished = f"{target}.{os.getpid()}"  # renamed when complete: an interrupted run leaves no half a model behind
    write(unfinished)
    os.replace(unfinished, target)
