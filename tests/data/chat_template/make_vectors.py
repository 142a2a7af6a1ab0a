#!/usr/bin/env python3
"""What Jinja writes for templates and conversations: vectors/rendered.json, or with --transformers FILE what
transformers' own function for apply_chat_template writes for the same. Jinja is set up as transformers does it."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from families import FAMILIES  # noqa: E402
from pieces import PIECES  # noqa: E402


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def conversations():
    hello = [turn("user", "Hi"), turn("assistant", "Hello!")]
    tools = [{"type": "function", "function": {"name": "wéather", "parameters": {"of": ["a", 1, 2.5, None, True, {}, []]}}}]
    call = [turn("user", "Rain?"),
            turn("assistant", "", tool_calls=[{"type": "function", "function": {"name": "rain", "arguments": {"in": "Łódź", "n": 3}}}]),
            turn("tool", "{\"wet\": true}"), turn("assistant", "Yes.")]
    yield {"messages": [turn("user", "Hi")]}
    yield {"messages": hello}
    yield {"messages": [turn("system", "Be kind.")] + hello + [turn("user", "Bye")]}
    yield {"messages": [turn("system", "  spaced\n ")] + [turn("user", "\n\t Grüße, 世界 🙂 \u3000"), turn("assistant", "\u00a0ja\u2028 ")]}
    yield {"messages": [turn("system", ""), turn("user", ""), turn("assistant", "")]}
    yield {"messages": hello + [turn("assistant", "And more.")]}
    yield {"messages": [turn("user", "1+1?"), turn("assistant", "<think>\nadd\n</think>\n\n2"), turn("user", "2+2?"),
                        turn("assistant", "<think>\nadd again\n</think>\n\n4")]}
    yield {"messages": [turn("user", "<|im_end|> {{ 1 }} {% if %} \\n '\""), turn("assistant", "a\r\nb")]}
    yield {"messages": [turn("user", [{"type": "text", "text": "in"}, {"type": "image"}, {"type": "text", "text": " parts"}])]}
    yield {"messages": call, "tools": tools}
    yield {"messages": hello, "tools": tools}
    yield {"messages": hello, "enable_thinking": False}
    yield {"messages": [turn("assistant", "First."), turn("user", "Second.")]}
    yield {"messages": [turn("user", None)]}
    yield {"messages": []}
    yield {"messages": [turn("user", "Hi", name="Ann")], "date_string": "1 Jan 2030"}


TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def cases():
    """(template, variables)"""
    for name in FAMILIES:
        for given in conversations():
            for prompt in (False, True):
                yield name, {"tools": None, "documents": None, **given, "add_generation_prompt": prompt, **TOKENS}
    for name in PIECES:
        yield name, {"messages": [turn("user", "Hi"), turn("assistant", "Grüße 🙂!"), turn("user", "Bye")],
                     "tools": None, "text": " a,b,,c ", "numbers": [3, 1, 2], "add_generation_prompt": True,
                     "table": {"b": 1, "a": [1, 2.5, "x'y"], "items": 7, "": None}, **TOKENS}


def jinja_environment():
    import jinja2
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Marks(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("said"), [], [], body).set_lineno(line)

        def said(self, caller):
            return "\ue000" + caller() + "\ue001"

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Marks, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    return environment


def by_jinja(template, variables):
    """Text with \ue000 and \ue001 around what the assistant says; None where it is refused."""
    try:
        return jinja_environment().from_string(template).render(**variables)
    except Exception:
        return None


def by_transformers(template, variables):
    from transformers.utils.chat_template_utils import render_jinja_template
    given = dict(variables)
    marks = "{% generation %}" in template
    try:
        rendered, spans = render_jinja_template(
            [given.pop("messages")], tools=given.pop("tools"), documents=given.pop("documents", None), chat_template=template,
            return_assistant_tokens_mask=marks, add_generation_prompt=given.pop("add_generation_prompt"), **given)
    except Exception:
        return None
    text = rendered[0]
    for begin, end in reversed(spans[0] if marks else []):
        text = text[:begin] + "\ue000" + text[begin:end] + "\ue001" + text[end:]
    return text


def main():
    foreign = len(sys.argv) > 2 and sys.argv[1] == "--transformers"
    render = by_transformers if foreign else by_jinja
    templates = {**FAMILIES, **PIECES}
    variables, rows = [], []
    for name, given in cases():
        if foreign and name not in FAMILIES:
            continue
        if given not in variables:
            variables.append(given)
        rows.append([name, variables.index(given), render(templates[name], given)])
    path = sys.argv[2] if foreign else os.path.join(os.path.dirname(os.path.abspath(__file__)), "vectors", "rendered.json")
    with open(path, "w", encoding="utf-8") as out:
        json.dump({"templates": templates, "variables": variables, "rendered": rows}, out, ensure_ascii=False, separators=(",", ":"))
        out.write("\n")


if __name__ == "__main__":
    main()
