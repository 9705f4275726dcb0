"""The checks of the client test in Python: what clients make of the gateway's answers.

    answers.py openai | langchain | esperanto | litellm
    answers.py books        afterwards: whether the gateway has counted what the provider has billed

run.sh starts everything and tells where it is through the environment:

    SHAPES          the provider of shapes.py, without /v1
    ANSWERS         a gateway in front of it, without /v1
    ANSWERS_FOLDER  the gateway's folder, with its configuration and its ledger
    GATEWAY         the gateway's binary
    SUMMARY         file that gets how many checks passed, and how many failed

What is expected is what shapes.py answers, as each client shows it: content, tool calls, usage and errors.
"""

import asyncio
import contextlib
import faulthandler
import functools
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
import warnings
from decimal import Decimal

import shapes

URL = os.environ["ANSWERS"] + "/v1"
KEY = "sk-rich-5d41402abc4b2a76"  # of whoever has a budget
HELLO = [{"role": "user", "content": "hello"}]
SAID = "".join(shapes.WORDS)
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": WEATHER}}
FACTS = {"type": "object", "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
         "required": ["city", "degrees"], "additionalProperties": False}

# What is uploaded: no text, with line ends and what looks like a boundary in it.
UPLOAD = random.Random(1).randbytes(200_000) + b"\r\n--boundary--\r\n" + random.Random(2).randbytes(100_001) + b"\r\n"
HEARD = shapes.HEARD + hashlib.sha256(UPLOAD).hexdigest()


# --- the checks' frame ------------------------------------------------------------------------------------------------

CHECKS = {}


def of(client):
    def check(function):
        CHECKS.setdefault(client, []).append(function)
        return function

    return check


def equal(actual, expected, what):
    assert actual == expected, f"{what}: expected {expected!r}, got {actual!r}"


def silently(function):
    """What the client has marked as old is used all the same."""

    @functools.wraps(function)
    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function()

    return run


@contextlib.contextmanager
def fails(kind, **expected):
    """The block must fail with this error, which has these attributes."""
    try:
        yield
    except kind as error:
        equal({name: getattr(error, name) for name in expected}, expected, f"the error ({error})")
    else:
        raise AssertionError(f"expected {kind.__name__}, got an answer")


@contextlib.contextmanager
def says(kind, *words):
    """The block must fail with this error, which says this."""
    try:
        yield
    except kind as error:
        for word in words:
            assert word in str(error), f"expected {word!r} in {error}"
    else:
        raise AssertionError(f"expected {kind.__name__}, got an answer")


@contextlib.contextmanager
def uploaded(name):
    """The path of a file with what is uploaded."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(UPLOAD)
        yield path


def tokens(want):
    """Input, cached, output, reasoning of an answer of shapes.py."""
    return shapes.USED[want]


def fetched(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


# --- openai -----------------------------------------------------------------------------------------------------------


def openai_client(**more):
    import openai

    return openai.OpenAI(**{"base_url": URL, "api_key": KEY, "timeout": 20, "max_retries": 0, **more})


def chat_usage(usage):
    """As OpenAI's client shows it, in the order of shapes.py."""
    return (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens, usage.completion_tokens,
            usage.completion_tokens_details.reasoning_tokens)


def response_usage(usage):
    return (usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens,
            usage.output_tokens_details.reasoning_tokens)


def named_calls(calls):
    return [(call.id, call.function.name, call.function.arguments) for call in calls]


@of("openai")
def a_chat():
    answer = openai_client().chat.completions.create(model="talk", messages=HELLO)
    choice = answer.choices[0]
    equal((choice.message.content, choice.finish_reason), (SAID, "stop"), "answer")
    equal((chat_usage(answer.usage), answer.usage.total_tokens), (tokens("words"), 29), "usage")


@of("openai")
def a_stream_of_a_chat():
    ask = openai_client().chat.completions.create
    chunks = list(ask(model="talk", messages=HELLO, stream=True))
    equal([chunk.choices[0].delta.content for chunk in chunks[1:-1]], shapes.WORDS, "pieces")
    equal([chunk.usage for chunk in chunks], [None] * len(chunks), "usage that nobody asked for")
    equal(chunks[-1].choices[0].finish_reason, "stop", "the end")
    *_, last = ask(model="talk", messages=HELLO, stream=True, stream_options={"include_usage": True})
    equal((last.choices, chat_usage(last.usage)), ([], tokens("words")), "usage that was asked for")


@of("openai")
def the_stream_helper():
    with openai_client().chat.completions.stream(
        model="talk", messages=HELLO, stream_options={"include_usage": True}
    ) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_completion()
    equal((kinds.count("content.delta"), kinds.count("content.done")), (1 + len(shapes.WORDS), 1), "events")
    equal((answer.choices[0].message.content, chat_usage(answer.usage)), (SAID, tokens("words")), "answer")


@of("openai")
def a_chat_that_is_parsed():
    from pydantic import BaseModel

    class Facts(BaseModel):
        city: str
        degrees: int

    chats = openai_client().chat.completions
    answer = chats.parse(model="talk", messages=HELLO, response_format=Facts)
    equal(answer.choices[0].message.parsed, Facts(city="Oslo", degrees=7), "parsed")
    equal(chat_usage(answer.usage), tokens("facts"), "usage")
    with chats.stream(model="talk", messages=HELLO, response_format=Facts) as stream:
        stream.until_done()
        answer = stream.get_final_completion()
    equal((answer.choices[0].message.parsed, answer.usage), (Facts(city="Oslo", degrees=7), None), "parsed from a stream")


@of("openai")
def tools():
    chats = openai_client().chat.completions
    answer = chats.create(model="talk", messages=HELLO, tools=[TOOL])
    message = answer.choices[0].message
    equal((named_calls(message.tool_calls), answer.choices[0].finish_reason), (shapes.CALLS, "tool_calls"), "calls")
    equal((message.content, chat_usage(answer.usage)), (None, tokens("calls")), "content and usage")
    with chats.stream(model="talk", messages=HELLO, tools=[TOOL], stream_options={"include_usage": True}) as stream:
        stream.until_done()
        streamed = stream.get_final_completion()
    equal(named_calls(streamed.choices[0].message.tool_calls), shapes.CALLS, "calls from a stream")
    equal(chat_usage(streamed.usage), tokens("calls"), "usage of a stream")
    results = [{"role": "tool", "tool_call_id": call.id, "content": "7"} for call in message.tool_calls]
    answer = chats.create(model="talk", messages=[*HELLO, message, *results], tools=[TOOL])
    equal((answer.choices[0].message.content, chat_usage(answer.usage)), (shapes.AFTER_TOOLS, tokens("after")), "answer")


@of("openai")
def a_response():
    response = openai_client().responses.create(model="talk", input="hello", store=False)
    equal((response.output_text, response.status), (SAID, "completed"), "response")
    equal((response_usage(response.usage), response.usage.total_tokens), (tokens("words"), 29), "usage")


@of("openai")
def a_stream_of_a_response():
    responses = openai_client().responses
    events = list(responses.create(model="talk", input="hello", stream=True))
    equal([event.delta for event in events if event.type == "response.output_text.delta"], shapes.WORDS, "pieces")
    equal((events[0].type, events[-1].type), ("response.created", "response.completed"), "first and last event")
    equal([event.sequence_number for event in events], list(range(len(events))), "numbers")
    equal(response_usage(events[-1].response.usage), tokens("words"), "usage")
    with responses.stream(model="talk", input="hello") as stream:
        response = stream.until_done().get_final_response()
    equal((response.output_text, response_usage(response.usage)), (SAID, tokens("words")), "the helper's response")


@of("openai")
def a_response_that_is_kept():
    import openai

    responses = openai_client().responses
    first = responses.create(model="talk", input="hello")
    second = responses.create(model="talk", input="hello", previous_response_id=first.id)
    equal((second.output_text, second.previous_response_id), (SAID, first.id), "what goes on from it")
    equal(responses.retrieve(first.id).output_text, SAID, "the same once more")
    equal([item.content[0].text for item in responses.input_items.list(first.id)], ["hello"], "what it was made from")
    responses.delete(first.id)
    with fails(openai.NotFoundError, status_code=404):
        responses.retrieve(first.id)
    with fails(openai.BadRequestError, code="previous_response_not_found", param="previous_response_id"):
        responses.create(model="talk", input="hello", previous_response_id=first.id)


@of("openai")
def a_response_that_is_parsed():
    from pydantic import BaseModel

    class Facts(BaseModel):
        city: str
        degrees: int

    responses = openai_client().responses
    response = responses.parse(model="talk", input="hello", text_format=Facts)
    equal((response.output_parsed, response_usage(response.usage)), (Facts(city="Oslo", degrees=7), tokens("facts")), "parsed")
    with responses.stream(model="talk", input="hello", text_format=Facts) as stream:
        response = stream.until_done().get_final_response()
    equal(response.output_parsed, Facts(city="Oslo", degrees=7), "parsed from a stream")


@of("openai")
def tools_of_a_response():
    responses = openai_client().responses
    tool = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}

    def calls(response):
        return [(item.call_id, item.name, item.arguments) for item in response.output]

    response = responses.create(model="talk", input="hello", tools=[tool])
    equal((calls(response), response_usage(response.usage)), (shapes.CALLS, tokens("calls")), "calls and usage")
    with responses.stream(model="talk", input="hello", tools=[tool]) as stream:
        streamed = stream.until_done().get_final_response()
    equal((calls(streamed), response_usage(streamed.usage)), (shapes.CALLS, tokens("calls")), "from a stream")
    said = [{"role": "user", "content": "hello"}, *(item.to_dict() for item in response.output)]
    said += [{"type": "function_call_output", "call_id": item.call_id, "output": "7"} for item in response.output]
    equal(responses.create(model="talk", input=said, tools=[tool]).output_text, shapes.AFTER_TOOLS, "answer")


@of("openai")
def vectors():
    embed = openai_client().embeddings.create
    expected = [[1.0, -2.0, 0.0], [1.0, -2.0, 1.0]]
    # Unless it is told, this client asks for base64, and decodes it.
    for form in ({}, {"encoding_format": "float"}):
        answer = embed(model="vector", input=["a", "b"], **form)
        equal([list(item.embedding) for item in answer.data], expected, f"vectors, asked for with {form}")
        equal((answer.usage.prompt_tokens, answer.usage.total_tokens), (8, 8), "usage")
    equal(embed(model="vector", input="a", encoding_format="base64").data[0].embedding, "AACAPwAAAMAAAAAA", "base64")


@of("openai")
def speech():
    speak = openai_client().audio.speech
    asked = {"model": "speak", "voice": "coral", "input": "Grüße 🌍."}
    answer = speak.create(**asked)
    equal((answer.response.headers["content-type"], answer.content), ("audio/mpeg", shapes.SOUND), "sound")
    with speak.with_streaming_response.create(**asked, response_format="wav") as answer:
        equal(answer.headers["content-type"], "audio/wav", "content-type")
        equal(b"".join(answer.iter_bytes(1000)), shapes.SOUND, "sound as it comes")
    # The events of this form are nothing that this client reads; it gives them out as they are.
    asked["model"] = "speak-by-token"
    with speak.with_streaming_response.create(**asked, stream_format="sse") as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line]
    equal(events[-1], {"type": "speech.audio.done",
                       "usage": {"input_tokens": 3, "output_tokens": 24, "total_tokens": 27}}, "the last event")
    equal(len(events), 5, "events")


@of("openai")
def transcripts():
    hear = openai_client().audio.transcriptions.create
    with uploaded("a b.wav") as path, open(path, "rb") as file:
        answer = hear(model="hear", file=file)
    equal((answer.text, answer.usage.type, answer.usage.seconds), (HEARD, "duration", 9), "transcript and usage")
    given = ("Aufnahme.mp3", UPLOAD, "audio/mpeg")
    equal(hear(model="hear", file=given, response_format="text"), HEARD + "\n", "text")
    srt = hear(model="hear", file=given, response_format="srt")
    assert srt.startswith("1\n00:00") and HEARD in srt, srt
    assert hear(model="hear", file=given, response_format="vtt").startswith("WEBVTT\n\n"), "no WEBVTT"
    verbose = hear(model="hear", file=given, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    equal((verbose.text, verbose.words[0].word, verbose.segments[0].tokens), (HEARD, "Heard", [50364, 440]), "verbose")
    equal((verbose.duration, verbose.usage.seconds), (8.47, 9), "duration")


@of("openai")
def transcripts_by_token_and_as_streams():
    hear = openai_client().audio.transcriptions.create
    answer = hear(model="hear-by-token", file=("a.wav", UPLOAD))
    usage = answer.usage
    equal((answer.text, usage.type, usage.input_tokens, usage.output_tokens), (HEARD, "tokens", 14, 31), "transcript")
    events = list(hear(model="hear-by-token", file=("a.wav", UPLOAD), stream=True))
    equal("".join(event.delta for event in events[:-1]), HEARD, "pieces")
    equal((events[-1].text, events[-1].usage.total_tokens), (HEARD, 45), "the last event")


@of("openai")
@silently
def translations():
    translate = openai_client().audio.translations.create
    equal(translate(model="hear", file=("a.wav", UPLOAD)).text, HEARD, "text")
    verbose = translate(model="hear", file=("a.wav", UPLOAD), response_format="verbose_json")
    equal((verbose.text, verbose.language), (HEARD, "german"), "verbose")


@of("openai")
def pictures():
    import base64

    images = openai_client().images
    answer = images.generate(model="draw", prompt="a toll house", n=2)
    equal([base64.b64decode(image.b64_json) for image in answer.data], [shapes.PICTURE] * 2, "pictures")
    equal((answer.data[0].revised_prompt, answer.usage), ("a toll house", None), "prompt and usage")
    answer = images.generate(model="draw-by-token", prompt="a toll house")
    usage = answer.usage
    equal((usage.input_tokens, usage.output_tokens, usage.input_tokens_details.text_tokens), (10, 272, 10), "usage")
    events = list(images.generate(model="draw-by-token", prompt="a toll house", stream=True, partial_images=1))
    equal([event.type for event in events], ["image_generation.partial_image", "image_generation.completed"], "events")
    equal((base64.b64decode(events[1].b64_json), events[1].usage.output_tokens), (shapes.PICTURE, 272), "streamed")


@of("openai")
def changed_pictures():
    import base64

    images = openai_client().images
    first, second = shapes.PICTURE + UPLOAD, shapes.PICTURE + UPLOAD[::-1]
    digests = [hashlib.sha256(picture).hexdigest() for picture in (first, second)]
    answer = images.edit(model="draw-by-token", image=("a.png", first), mask=("m.png", second), prompt="add a barrier")
    equal(answer.data[0].revised_prompt, " ".join(["add a barrier", *digests]), "what came of it")
    equal((base64.b64decode(answer.data[0].b64_json), answer.usage.output_tokens), (shapes.PICTURE, 272), "picture")
    answer = images.edit(model="draw", image=[("a.png", first), ("b.png", second)], prompt="add a barrier", n=3)
    equal([image.revised_prompt for image in answer.data], [" ".join(["add a barrier", *digests])] * 3, "of two pictures")
    events = list(images.edit(model="draw-by-token", image=("a.png", first), prompt="add a barrier", stream=True))
    equal((events[-1].type, events[-1].usage.output_tokens), ("image_edit.completed", 272), "the last event")


@of("openai")
def moderations():
    answer = openai_client().moderations.create(model="judge", input=["hello", "a threat"])
    equal([result.flagged for result in answer.results], [False, True], "flagged")
    result = answer.results[1]
    equal((result.categories.violence, result.category_scores.violence, result.categories.self_harm_intent),
          (True, 0.98, False), "categories")


@of("openai")
def rankings():
    body = {"model": "sort", "query": "toll", "documents": ["a", "abc", "ab"], "top_n": 2}
    answer = openai_client().post("/rerank", body=body, cast_to=object)
    equal([result["index"] for result in answer["results"]], [1, 2], "places")


@of("openai")
def models():
    models = openai_client().models
    listed = {model.id: getattr(model, "kind", None) for model in models.list()}
    for name, (kind, _, _) in shapes.MODELS.items():
        equal((listed.get(name), listed.get(f"shapes/{name}")), (kind, kind), f"kind of {name}")
    for name in ("talk", "shapes/talk"):
        model = models.retrieve(name)
        equal((model.id, model.object, model.kind), (name, "model", "chat"), "model")


@of("openai")
def errors():
    import openai

    client = openai_client()
    chat = client.chat.completions.create
    stranger = openai_client(api_key="sk-nobody")
    with fails(openai.AuthenticationError, status_code=401, code="invalid_api_key", param=None):
        stranger.chat.completions.create(model="talk", messages=HELLO)
    with fails(openai.AuthenticationError, status_code=401, code="invalid_api_key"):
        stranger.audio.transcriptions.create(model="hear", file=("a.wav", UPLOAD))
    with fails(openai.NotFoundError, status_code=404, code="model_not_found", param="model", type="invalid_request_error"):
        chat(model="unheard-of", messages=HELLO)
    with fails(openai.NotFoundError, status_code=404, code="model_not_found", param="model"):
        client.audio.transcriptions.create(model="unheard-of", file=("a.wav", UPLOAD))
    with fails(openai.NotFoundError, status_code=404, code="model_not_found"):
        client.models.retrieve("unheard-of")
    # The provider's own word.
    for stream in (False, True):
        with fails(openai.BadRequestError, status_code=400, code="decimal_above_max_value", param="temperature",
                   type="invalid_request_error"):
            chat(model="talk", messages=HELLO, temperature=3, stream=stream)
    # The gateway's: models of another kind.
    wrong = {"status_code": 400, "code": "invalid_request", "param": "model", "type": "invalid_request_error"}
    with fails(openai.BadRequestError, **wrong):
        chat(model="vector", messages=HELLO)
    with fails(openai.BadRequestError, **wrong):
        client.responses.create(model="speak", input="hello")
    with fails(openai.BadRequestError, **wrong):
        client.audio.transcriptions.create(model="talk", file=("a.wav", UPLOAD))
    with fails(openai.BadRequestError, **wrong):
        client.images.edit(model="hear", image=("a.png", UPLOAD), prompt="add a barrier")
    with fails(openai.BadRequestError, status_code=400, param="n"):
        client.images.generate(model="draw", prompt="a toll house", n="many")


@of("openai")
def all_of_it_without_threads():
    """The asynchronous client has another way over the network."""
    import openai

    async def ask():
        async with openai.AsyncOpenAI(base_url=URL, api_key=KEY, timeout=20, max_retries=0) as client:
            stream = await client.chat.completions.create(model="talk", messages=HELLO, stream=True)
            chat = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            response, transcript = await asyncio.gather(
                client.responses.create(model="talk", input="hello"),
                client.audio.transcriptions.create(model="hear", file=("a.wav", UPLOAD)),
            )
            return chat, response.output_text, transcript.text

    equal(asyncio.run(ask()), (SAID, SAID, HEARD), "answers")


# --- langchain-openai -------------------------------------------------------------------------------------------------


def langchain_chat(**more):
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(**{"model": "talk", "base_url": URL, "api_key": KEY, "timeout": 20, "max_retries": 0, **more})


def langchain_usage(usage):
    return (usage["input_tokens"], usage["input_token_details"]["cache_read"], usage["output_tokens"],
            usage["output_token_details"]["reasoning"])


def langchain_calls(message):
    return [(call["id"], call["name"], call["args"]) for call in message.tool_calls]


LANGCHAIN_CALLS = [(id, name, json.loads(arguments)) for id, name, arguments in shapes.CALLS]


@of("langchain")
def invoke():
    answer = langchain_chat().invoke("hello")
    equal((answer.content, langchain_usage(answer.usage_metadata)), (SAID, tokens("words")), "answer")


@of("langchain")
def stream():
    # Only at OpenAI's own address does it ask for the usage unasked.
    chunks = list(langchain_chat().stream("hello"))
    equal(("".join(chunk.content for chunk in chunks), [chunk.usage_metadata for chunk in chunks]),
          (SAID, [None] * len(chunks)), "stream")
    answer = sum_of(langchain_chat(stream_usage=True).stream("hello"))
    equal((answer.content, langchain_usage(answer.usage_metadata)), (SAID, tokens("words")), "stream with its usage")


def sum_of(chunks):
    return functools.reduce(lambda one, other: one + other, chunks)


@of("langchain")
def bind_tools():
    def weather(city: str) -> str:
        """The weather."""
        return "7"

    chat = langchain_chat(stream_usage=True).bind_tools([weather])
    answer = chat.invoke("hello")
    equal((langchain_calls(answer), langchain_usage(answer.usage_metadata)), (LANGCHAIN_CALLS, tokens("calls")), "calls")
    streamed = sum_of(chat.stream("hello"))
    equal((langchain_calls(streamed), langchain_usage(streamed.usage_metadata)), (LANGCHAIN_CALLS, tokens("calls")),
          "calls from a stream")
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "7"} for call in answer.tool_calls]
    equal(chat.invoke([*HELLO, answer, *results]).content, shapes.AFTER_TOOLS, "answer")


@of("langchain")
def with_structured_output():
    from pydantic import BaseModel

    class Facts(BaseModel):
        city: str
        degrees: int

    answer = langchain_chat().with_structured_output(Facts, include_raw=True).invoke("hello")
    equal(answer["parsed"], Facts(city="Oslo", degrees=7), "parsed")
    equal(langchain_usage(answer["raw"].usage_metadata), tokens("facts"), "usage")


@of("langchain")
def responses():
    chat = langchain_chat(use_responses_api=True)
    answer = chat.invoke("hello")
    equal((answer.text, langchain_usage(answer.usage_metadata)), (SAID, tokens("words")), "response")
    streamed = sum_of(chat.stream("hello"))
    equal((streamed.text, langchain_usage(streamed.usage_metadata)), (SAID, tokens("words")), "response as a stream")


@of("langchain")
def embeddings():
    from langchain_openai import OpenAIEmbeddings

    # It would count tokens by a list that it downloads.
    embed = OpenAIEmbeddings(model="vector", base_url=URL, api_key=KEY, check_embedding_ctx_length=False)
    equal(embed.embed_documents(["a", "b"]), [[1.0, -2.0, 0.0], [1.0, -2.0, 1.0]], "documents")
    equal(embed.embed_query("a"), [1.0, -2.0, 0.0], "query")


@of("langchain")
def errors_of_langchain():
    import openai

    with fails(openai.AuthenticationError, status_code=401, code="invalid_api_key"):
        langchain_chat(api_key="sk-nobody").invoke("hello")
    with fails(openai.NotFoundError, status_code=404, code="model_not_found", param="model"):
        langchain_chat(model="unheard-of").invoke("hello")
    with fails(openai.BadRequestError, status_code=400, code="decimal_above_max_value", param="temperature"):
        langchain_chat(temperature=3).invoke("hello")


# --- esperanto: all that it is told is in its environment ---------------------------------------------------------------


def esperanto(what, model, key=KEY):
    for capability in ("LLM", "EMBEDDING", "STT", "TTS"):
        os.environ[f"OPENAI_COMPATIBLE_BASE_URL_{capability}"] = URL
        os.environ[f"OPENAI_COMPATIBLE_API_KEY_{capability}"] = key
    from esperanto import AIFactory

    return getattr(AIFactory, f"create_{what}")("openai-compatible", model)


def esperanto_usage(usage):
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


@of("esperanto")
def a_language_model():
    model = esperanto("language", "talk")
    answer = model.chat_complete(HELLO)
    equal((answer.content, esperanto_usage(answer.usage)), (SAID, (20, 9, 29)), "answer")
    chunks = list(model.chat_complete(HELLO, stream=True))
    equal([chunk.choices[0].delta.content for chunk in chunks], ["", *shapes.WORDS, ""], "pieces")
    equal(chunks[-1].choices[0].finish_reason, "stop", "the end")


@of("esperanto")
def tools_of_a_language_model():
    from esperanto.common_types import Tool, ToolFunction

    model = esperanto("language", "talk")
    tool = Tool(type="function", function=ToolFunction(name="weather", description="The weather.", parameters=WEATHER))
    answer = model.chat_complete(HELLO, tools=[tool])
    equal((named_calls(answer.choices[0].message.tool_calls), esperanto_usage(answer.usage)),
          (shapes.CALLS, (60, 18, 78)), "calls")
    deltas = [call for chunk in model.chat_complete(HELLO, tools=[tool], stream=True)
              for call in chunk.choices[0].delta.tool_calls or []]
    equal([call.function.name for call in deltas if call.id], ["weather", "weather"], "names from a stream")
    for index, (_, _, arguments) in enumerate(shapes.CALLS):
        equal("".join(call.function.arguments for call in deltas if call.index == index), arguments, "arguments")


@of("esperanto")
def an_embedding_model():
    equal(esperanto("embedding", "vector").embed(["a", "b"]), [[1.0, -2.0, 0.0], [1.0, -2.0, 1.0]], "vectors")


@of("esperanto")
def speech_to_text():
    model = esperanto("speech_to_text", "hear")
    with uploaded("a b.wav") as path:
        equal(model.transcribe(path, language="de").text, HEARD, "transcript of a path")
        with open(path, "rb") as file:
            equal(model.transcribe(file).text, HEARD, "transcript of a file")


@of("esperanto")
def text_to_speech():
    answer = esperanto("text_to_speech", "speak").generate_speech("Grüße 🌍.", voice="coral")
    equal((answer.audio_data, answer.model), (shapes.SOUND, "speak"), "sound")


@of("esperanto")
def errors_of_esperanto():
    # It shows no more than the message.
    with says(RuntimeError, "there is no model `unheard-of`"):
        esperanto("language", "unheard-of").chat_complete(HELLO)
    with says(RuntimeError, "the key is missing or not valid"):
        esperanto("embedding", "vector", "sk-nobody").embed(["a"])
    with says(RuntimeError, "Invalid 'temperature': 3.0 is more than 2."):
        esperanto("language", "talk").chat_complete(HELLO, temperature=3.0)
    with uploaded("a.wav") as path, says(RuntimeError, "`talk`", "chat"):
        esperanto("speech_to_text", "talk").transcribe(path)


# --- litellm ----------------------------------------------------------------------------------------------------------


def litellm_client():
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would download one
    warnings.filterwarnings("ignore", module="pydantic")
    import litellm

    litellm.suppress_debug_info = True
    return litellm


LITELLM = {"api_base": URL, "api_key": KEY, "timeout": 20, "max_retries": 0}


@of("litellm")
def completion():
    answer = litellm_client().completion("openai/talk", HELLO, **LITELLM)
    equal((answer.choices[0].message.content, chat_usage(answer.usage)), (SAID, tokens("words")), "answer")


@of("litellm")
def streams():
    litellm = litellm_client()
    usage = {"include_usage": True}
    chunks = list(litellm.completion("openai/talk", HELLO, stream=True, stream_options=usage, **LITELLM))
    equal([chunk.choices[0].delta.content for chunk in chunks if chunk.choices][1:7], shapes.WORDS, "pieces")
    built = litellm.stream_chunk_builder(chunks)
    equal((built.choices[0].message.content, chat_usage(built.usage)), (SAID, tokens("words")), "all of it")


@of("litellm")
def tools_of_litellm():
    litellm = litellm_client()
    answer = litellm.completion("openai/talk", HELLO, tools=[TOOL], **LITELLM)
    equal((named_calls(answer.choices[0].message.tool_calls), chat_usage(answer.usage)), (shapes.CALLS, tokens("calls")), "calls")
    chunks = list(litellm.completion("openai/talk", HELLO, tools=[TOOL], stream=True, **LITELLM))
    built = litellm.stream_chunk_builder(chunks)
    equal(named_calls(built.choices[0].message.tool_calls), shapes.CALLS, "calls from a stream")


@of("litellm")
def embedding():
    litellm = litellm_client()
    for form in ({}, {"encoding_format": "float"}):
        answer = litellm.embedding("openai/vector", ["a", "b"], **form, **LITELLM)
        equal([item["embedding"] for item in answer.data], [[1.0, -2.0, 0.0], [1.0, -2.0, 1.0]], "vectors")
        equal((answer.usage.prompt_tokens, answer.usage.total_tokens), (8, 8), "usage")


@of("litellm")
def responses_of_litellm():
    litellm = litellm_client()
    response = litellm.responses(model="openai/talk", input="hello", **LITELLM)
    equal((response.output[0].content[0].text, response_usage(response.usage)), (SAID, tokens("words")), "response")
    events = list(litellm.responses(model="openai/talk", input="hello", stream=True, **LITELLM))
    equal("".join(event.delta for event in events if event.type == "response.output_text.delta"), SAID, "pieces")


@of("litellm")
def what_else_litellm_asks_for():
    litellm = litellm_client()
    transcript = litellm.transcription("openai/hear", ("a.wav", UPLOAD), **LITELLM)
    equal((transcript.text, transcript.usage.seconds), (HEARD, 9), "transcript")
    equal(litellm.speech("openai/speak", "hello", "coral", **LITELLM).content, shapes.SOUND, "sound")
    answer = litellm.image_generation("a toll house", "openai/draw-by-token", **LITELLM)
    equal((answer.data[0].revised_prompt, answer.usage.output_tokens), ("a toll house", 272), "picture")
    answer = litellm.rerank("hosted_vllm/sort", "toll", ["a", "abc", "ab"], top_n=2, api_base=URL, api_key=KEY)
    equal([result["index"] for result in answer.results], [1, 2], "places")


@of("litellm")
def errors_of_litellm():
    import openai

    litellm = litellm_client()
    with fails(litellm.AuthenticationError, status_code=401):
        litellm.completion("openai/talk", HELLO, **{**LITELLM, "api_key": "sk-nobody"})
    with fails(litellm.NotFoundError, status_code=404):
        litellm.completion("openai/unheard-of", HELLO, **LITELLM)
    with fails(litellm.BadRequestError, status_code=400, param="temperature", code="decimal_above_max_value"):
        litellm.completion("openai/talk", HELLO, temperature=3, **LITELLM)
    with fails(openai.BadRequestError, status_code=400, param="model"):  # as it comes, where sound is uploaded
        litellm.transcription("openai/talk", ("a.wav", UPLOAD), **LITELLM)


# --- the books --------------------------------------------------------------------------------------------------------


def usage_by_model():
    command = [os.environ["GATEWAY"], "usage", "--by", "model", "--format", "json"]
    said = subprocess.run(command, cwd=os.environ["ANSWERS_FOLDER"], capture_output=True, text=True, timeout=20, check=True)
    rows = json.loads(said.stdout)
    return [{**row, "usd": Decimal(row["usd"])} for row in rows]


@of("books")
def the_provider_has_nothing_to_complain_of():
    equal(fetched(os.environ["SHAPES"] + "/complaints"), [], "complaints")


@of("books")
def what_was_used_is_in_the_ledger_to_the_billionth():
    billed = fetched(os.environ["SHAPES"] + "/billed")
    deadline = time.monotonic() + 5  # the file is a moment behind
    while True:
        rows = {row["model"]: row for row in usage_by_model()}
        with contextlib.suppress(AssertionError):
            equal({model: row["entries"] for model, row in rows.items()},
                  {model: books["answers"] for model, books in billed.items()}, "answers")
            break
        assert time.monotonic() < deadline, f"entries: {rows}, billed: {billed}"
        time.sleep(0.1)
    for model, books in billed.items():
        row = rows[model]
        equal(row["usd"] * 10**9, books["cost"], f"billionths of a dollar for {model}")
        equal((row["estimated"], row["unpriced"]), (books["guesses"], 0), f"guesses, and answers without a price, of {model}")
        for unit, count in books["used"].items():
            # Classes without a price of their own count as input and output.
            parts = {"input": ("input", "audio_input", "image_input"),
                     "output": ("output", "reasoning", "audio_output", "image_output")}
            equal(sum(row[part] for part in parts.get(unit, (unit,))), count, f"{unit} of {model}")


@of("books")
def the_budget_knows_what_was_spent():
    spent = sum(books["cost"] for books in fetched(os.environ["SHAPES"] + "/billed").values())
    request = urllib.request.Request(URL + "/usage", headers={"authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        (budget,) = json.load(response)["budgets"]
    equal((Decimal(budget["spent_usd"]) * 10**9, Decimal(budget["held_usd"])), (spent, 0), "spent and held")


def main():
    # Whatever hangs is shown where it does, and ends.
    faulthandler.dump_traceback_later(120, exit=True)
    passed, failed = 0, 0
    for function in CHECKS[sys.argv[1]]:
        name = f"{sys.argv[1]}: {function.__name__.replace('_', ' ')}"
        try:
            function()
        except Exception:
            failed += 1
            print(f"FAIL  {name}", flush=True)
            traceback.print_exc(file=sys.stdout)
        else:
            passed += 1
            print(f"ok    {name}", flush=True)
    with open(os.environ["SUMMARY"], "a") as summary:
        print(passed, failed, file=summary)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
