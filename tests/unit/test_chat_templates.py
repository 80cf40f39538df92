"""Chat templates as models have them: where a turn ends, tool calls, reasoning; what a template drops is refused."""

import logging

import pytest

from sstoken.data import DataError, token_data
from tests.byte_models import byte_tokenizer


def turn(end):
    """A chat template whose every turn ends in ``end``."""
    header = "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{{ m['content'] }}"
    return header + "{{ '" + end + "' }}{% endfor %}"


QUESTION = {"role": "user", "content": "q"}
TWO = [QUESTION, {"role": "assistant", "content": "one"}, QUESTION, {"role": "assistant", "content": "two"}]
ENDS = {
    "directly": (turn("</s>"), "one</s>two</s>"),
    "after a space": (turn(" </s>"), "one </s>two </s>"),
    "after a new line": (turn("\\n</s>\\n"), "one\n</s>two\n</s>"),
    "not special": (turn("<end_of_turn>\\n"), "one<end_of_turn>two<end_of_turn>"),
    "not special, after a new line": (turn("\\n### End\\n"), "one\n### Endtwo\n### End"),
    "twice at the end of all": (turn("<|end|>\\n") + "{{ eos_token }}", "one<|end|>two<|end|>"),
    "none": (turn("\\n"), "onetwo"),
}


def tokenizer_of(template):
    made = byte_tokenizer(pad_token="</s>")
    made.chat_template = template
    return made


def response(tokenizer, data):
    return tokenizer.decode(data.input_ids[data.response_mask])


@pytest.mark.parametrize(("template", "expected"), ENDS.values(), ids=ENDS.keys())
def test_the_end_of_a_turn_is_response_wherever_the_template_puts_it(template, expected, caplog):
    tokenizer = tokenizer_of(template)
    with caplog.at_level(logging.WARNING):
        data = token_data([{"messages": TWO}], tokenizer, max_length=1000)
    assert response(tokenizer, data) == expected
    told = [r.getMessage() for r in caplog.records if "end-of-turn" in r.getMessage()]
    assert bool(told) == (expected == "onetwo")
    assert not told or "100.0 % of the assistant's turns (2 of 2)" in told[0]


@pytest.mark.parametrize("space", ["", "\\n"])
def test_an_end_of_all_alone_ends_only_the_last_turn(space, caplog):
    tokenizer = tokenizer_of(turn(space) + "{{ eos_token }}")
    with caplog.at_level(logging.WARNING):
        data = token_data([{"messages": TWO}], tokenizer, max_length=1000)
    assert response(tokenizer, data) == f"onetwo{chr(10) if space else ''}</s>"
    assert "50.0 % of the assistant's turns (1 of 2)" in caplog.text


def test_the_end_of_a_turn_is_always_clean_and_so_are_spans_that_say_so():
    tokenizer = tokenizer_of(turn("\\n</s>\\n"))
    answer = {"role": "assistant", "content": "yes it is", "noise": [[4, 6, "k"]], "always_clean": [[0, 3], [4, 6]]}
    data = token_data([{"messages": [QUESTION, answer]}], tokenizer, max_length=1000)
    assert tokenizer.decode(data.input_ids[data.always_clean]) == "yes\n</s>"
    assert token_data([{"messages": TWO}], tokenizer, max_length=1000).always_clean is None


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "adds", "parameters": {}}}]
CALLING = (
    "{% if tools %}{{ '<|tools|>' + (tools | tojson) + '\\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}"
    "{% if m.get('reasoning_content') %}{{ '<think>' + m['reasoning_content'] + '</think>' }}{% endif %}"
    "{{ m['content'] }}"
    "{% for call in m.get('tool_calls') or [] %}"
    "{{ '<call>' + (call.function.arguments | tojson) + '</call>' }}{% endfor %}"
    "{{ '<|end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
RESULT = {"role": "tool", "content": "3", "tool_call_id": "x"}
LAST = {"role": "assistant", "content": "It is 3."}


@pytest.mark.parametrize("content", ["I add.", "", None])
def test_calls_are_response_and_results_are_prompt(content):
    tokenizer = tokenizer_of(CALLING)
    messages = [QUESTION, {"role": "assistant", "content": content, "tool_calls": [CALL]}, RESULT, LAST]
    data = token_data([{"messages": messages, "tools": TOOLS}], tokenizer, max_length=1000)
    call = '<call>{"a": 1, "b": 2}</call><|end|>'
    assert response(tokenizer, data) == f"{content or ''}{call}It is 3.<|end|>"
    text = tokenizer.decode(data.input_ids)
    assert text.startswith('<|tools|>[{"type": "function"')
    assert "<|tool|>3<|end|>" in text


def test_a_template_that_lays_out_a_last_turn_otherwise_still_shows_where_calls_end():
    mark = "{% if loop.last and m['role'] == 'assistant' %}{{ '<now>' }}{% endif %}{{ '<|' + m['role'] + '|>' }}"
    tokenizer = tokenizer_of(CALLING.replace("{{ '<|' + m['role'] + '|>' }}", mark))
    messages = [QUESTION, {"role": "assistant", "content": "I add.", "tool_calls": [CALL]}, RESULT, LAST]
    data = token_data([{"messages": messages, "tools": TOOLS}], tokenizer, max_length=1000)
    assert response(tokenizer, data) == 'I add.<call>{"a": 1, "b": 2}</call><|end|>It is 3.<|end|>'


def test_arguments_given_as_json_text_are_not_quoted_twice():
    tokenizer, data = tokenizer_of(CALLING), []
    for arguments in ({"a": 1, "b": 2}, '{"a": 1, "b": 2}'):
        call = {"type": "function", "function": {"name": "add", "arguments": arguments}}
        row = {"messages": [QUESTION, {"role": "assistant", "tool_calls": [call]}]}
        data.append(token_data([row], tokenizer, max_length=1000))
    assert data[0].sha256 == data[1].sha256


def test_sharegpts_calls_are_calls():
    tokenizer = tokenizer_of(CALLING)
    talk = [("human", "q"), ("function_call", '{"name": "add", "arguments": {"a": 1, "b": 2}}'), ("observation", "3")]
    turns = [{"from": who, "value": value} for who, value in [*talk, ("gpt", "It is 3.")]]
    data = token_data([{"conversations": turns}], tokenizer, max_length=1000)
    assert response(tokenizer, data) == '<call>{"a": 1, "b": 2}</call><|end|>It is 3.<|end|>'


def test_reasoning_is_part_of_the_answer():
    tokenizer = tokenizer_of(CALLING)
    answer = {"role": "assistant", "content": "1", "reasoning_content": "1 is 1", "noise": [[0, 1, "k"]]}
    data = token_data([{"messages": [QUESTION, answer]}], tokenizer, max_length=1000)
    assert response(tokenizer, data) == "<think>1 is 1</think>1<|end|>"
    assert tokenizer.decode(data.input_ids[data.truth == 1]) == "1"
    assert int(data.truth[: -len("<|end|>\n")].argmax()) == len("<|user|>q<|end|>\n<|assistant|><think>1 is 1</think>")


DROPS = {
    "calls": ({"messages": [QUESTION, {**LAST, "tool_calls": [CALL]}]}, "leaves out tool_calls of message 2"),
    "tools": ({"messages": [QUESTION, LAST], "tools": TOOLS}, "leaves out tools"),
    "reasoning": ({"messages": [QUESTION, {**LAST, "reasoning_content": "r"}]}, "leaves out reasoning_content"),
}


@pytest.mark.parametrize(("row", "reason"), DROPS.values(), ids=DROPS.keys())
def test_what_a_template_leaves_out_is_refused(row, reason):
    with pytest.raises(DataError, match=reason):
        token_data([row], tokenizer_of(turn("</s>")), max_length=1000)
    with pytest.raises(DataError, match="template tulu has no place for"):
        token_data([row], tokenizer_of(turn("</s>")), template="tulu", max_length=1000)


def test_a_tools_turn_needs_a_chat_template():
    with pytest.raises(DataError, match="tulu has no place for a turn of the role tool"):
        token_data([{"messages": [QUESTION, RESULT, LAST]}], tokenizer_of(None), template="tulu", max_length=1000)


def test_a_template_that_drops_the_text_beside_calls_is_refused():
    dropping = CALLING.replace("{{ m['content'] }}", "{% if not m.get('tool_calls') %}{{ m['content'] }}{% endif %}")
    row = {"messages": [QUESTION, {"role": "assistant", "content": "I add.", "tool_calls": [CALL]}]}
    with pytest.raises(DataError, match="does not show every message"):
        token_data([row], tokenizer_of(dropping), max_length=1000)


def test_special_tokens_in_a_call_or_in_tools_are_refused():
    bad = {"type": "function", "function": {"name": "add", "arguments": {"a": "</s>"}}}
    rows = [{"messages": [QUESTION, {"role": "assistant", "tool_calls": [bad]}]}]
    rows += [{"messages": [QUESTION, LAST], "tools": [{"name": "</s>"}]}]
    for row in rows:
        with pytest.raises(DataError, match="holds the special token '</s>'"):
            token_data([row], tokenizer_of(CALLING), max_length=1000)


def test_samples_that_the_limit_cuts_are_counted(caplog):
    rows = [{"prompt": "q", "completion": "long " * 20}, {"prompt": "q", "completion": "b"}]
    with caplog.at_level(logging.WARNING):
        data = token_data(rows, tokenizer_of(turn("</s>")), max_length=40)
    assert data.lengths.tolist()[0] == 40
    assert "1 of 2 samples are longer than 40 tokens and were cut" in caplog.text
