"""Small templates, each of which asks for one thing or a few that belong together: a line each, in which ␤ and ␍ are line
breaks."""

_SOURCES = r"""
{{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 6 / 3 }} {{ 1.5 + 1 }}
{{ 1e3 }} {{ 1e22 }} {{ 0.1 + 0.2 }} {{ 1e-5 }} {{ 123456789012345680.0 }} {{ 1.0 }} {{ -2.50 }}
{{ -3 | abs }} {{ -(3) }} {{ +4 }} {{ 2 - -3 }} {{ - 1 + 2 }}
{{ true + 1 }} {{ not true }} {{ true and 0 }} {{ 0 or 'x' }} {{ none }} {{ True }} {{ None is none }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ 1 == true }} {{ '1' == 1 }} {{ [1] == (1,) }} {{ [1, [2]] == [1, [2.0]] }}
{{ 'a' in 'abc' }} {{ 'z' not in 'abc' }} {{ 1 in [1, 2] }} {{ 'role' in messages[0] }} {{ 'x' in nothing }} {{ not 'a' in 'b' }}
{{ 'a' ~ 1 ~ none ~ 2.0 ~ nothing ~ [1, 'b'] }}
{{ 'x' if true }}|{{ 'x' if false }}|{{ 'x' if 0 else 'y' }}|{{ 'a' if false else 'b' if false else 'c' }}
{{ nothing }}|{{ messages[9] }}|{{ messages[0].nothing }}|{{ table.nope }}|{{ table['nope'] }}|{{ none.x }}
{{ nothing.more }}
{{ nothing['more'] }}
{{ nothing + 1 }}
{{ nothing is defined }} {{ nothing is undefined }} {{ messages is defined }} {{ tools is defined }} {{ tools is none }}
{{ nothing == nothing2 }} {{ nothing == none }} {{ nothing | length }} {{ nothing | list }} {{ nothing | trim }} {{ nothing | upper }}
{{ nothing | default('d') }} {{ '' | default('d') }}| {{ '' | default('d', true) }} {{ none | d('e') }} {{ none | d('e', boolean=true) }} {{ nothing | d }}
{% for x in nothing %}{{ x }}{% else %}none{% endfor %}
{% for x in none %}{{ x }}{% endfor %}
{% for x in 5 %}{{ x }}{% endfor %}
{{ [] is sequence }} {{ {} is sequence }} {{ 'a' is sequence }} {{ 1 is sequence }} {{ nothing is sequence }} {{ (1, 2) is sequence }} {{ table.keys() is sequence }} {{ range(2) is sequence }}
{{ [] is iterable }} {{ {} is iterable }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ nothing is iterable }} {{ none is iterable }} {{ table.values() is iterable }}
{{ {} is mapping }} {{ [] is mapping }} {{ 'a' is string }} {{ 1 is string }} {{ 1 is number }} {{ 1.0 is number }} {{ true is number }} {{ '1' is number }}
{{ 1 is integer }} {{ true is integer }} {{ 1.0 is float }} {{ true is boolean }} {{ 1 is boolean }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 0 is false }}
{{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 1 is not defined }} {{ 1 is eq 1 }} {{ 1 is equalto(2) }} {{ 2 is gt 1 }} {{ 2 is lessthan 1 }} {{ 1 is in [1] }} {{ 2 is ne 1 }}
{{ true is sameas true }} {{ none is sameas none }} {{ true is sameas none }} {{ 1 is sameas true }}
{{ raise_exception is defined }} {{ range is callable }} {{ raise_exception is callable }} {{ 1 is callable }}
{{ 'a b' is lower }} {{ 'A' is upper }} {{ 'aB' is lower }} {{ '1' is lower }}
{{ raise_exception('no') }}
{{ [1, 2.0, 'a', "it's", "q\"q", none, true, [], {}, (), (1,), (1, 2), {'k': 'v', 'l': [1]}] }}
{{ "a\nb\t\\ \x01 \u00e9 \u200b\u00a0" }}|{{ ["a\nb\t\\ \x01 \u00e9 \u200b\u00a0 \U0001F642 \u0378"] }}
{{ table }} {{ messages }}
{{ {'a': 1, 'b': 2, 'a': 3} }} {{ {} }} {{ dict(a=1, b='x') }}
{{ 'single' "double" 'joined' }} {{ 'it\'s' }} {{ "\q\d" }} {{ '\x41\u0042' }}
{{ text | trim }}|{{ text.strip() }}|{{ text.lstrip() }}|{{ text.rstrip() }}|{{ '--a-'.strip('-') }}|{{ 'xay' | trim('xy') }}|{{ 12 | trim }}|{{ none | trim }}
{{ '\u3000\u00a0 x \x1c\x1f\n'.strip() }}|{{ '\u200bx'.strip() }}|{{ 'éaé'.strip('é') }}
{{ text.split(',') }} {{ text.split() }} {{ text.split(',', 1) }} {{ ' a  b c '.split(none, 1) }} {{ 'a,b,c'.split(',', maxsplit=1) }} {{ 'abc'.split('b')[-1] }} {{ ''.split() }} {{ ''.split(',') }}
{{ 'a,b,c'.rsplit(',', 1) }} {{ 'a,b,c'.rsplit(',') }} {{ 'a\nb\r\nc\x0bd\u2028e'.splitlines() }} {{ ''.splitlines() }} {{ 'a\n'.splitlines() }}
{{ 'abc'.startswith('a') }} {{ 'abc'.startswith(('x', 'ab')) }} {{ 'abc'.endswith('bc') }} {{ 'abc'.endswith('') }}
{{ 'aXbX'.replace('X', '--') }} {{ 'aXbX'.replace('X', '', 1) }} {{ 'aXb' | replace('X', 'Y') }} {{ 'aa' | replace('a', 'b', 1) }} {{ 11 | replace(1, 2) }}
{{ 'grün ÉTÉ' | upper }} {{ 'GRÜN été' | lower }} {{ 'hello WORLD' | capitalize }} {{ 'éa'.capitalize() }} {{ "it's a-b (c) [d" | title }} {{ 'ab'.upper() }} {{ 'AB'.lower() }} {{ none | upper }}
{{ 'abc'.find('c') }} {{ 'éc'.find('c') }} {{ 'abc'.find('z') }} {{ 'abab'.rfind('b') }} {{ 'abab'.count('ab') }} {{ 'prefix-a'.removeprefix('prefix-') }} {{ 'a.tail'.removesuffix('.tail') }}
{{ ','.join(['a', 'b']) }}
{{ ','.join([1]) }}
{{ ['a', 1, none] | join }} {{ ['a', 1, none] | join(', ') }} {{ messages | join('/', attribute='role') }} {{ 'abc' | join('-') }} {{ [] | join('x') }}
{{ 'abc' | length }} {{ 'Grüße 🙂' | length }} {{ messages | length }} {{ table | count }}
{{ 5 | length }}
{{ 'abc'[0] }} {{ 'abc'[-1] }} {{ 'é🙂x'[1] }} {{ 'abc'[9] }}| {{ numbers[0] }} {{ numbers[-1] }} {{ (1, 2)[1] }} {{ range(5)[2] }}
{{ 'abcdef'[1:3] }} {{ 'abcdef'[:-1] }} {{ 'abcdef'[-2:] }} {{ 'abcdef'[::2] }} {{ 'abcdef'[::-1] }} {{ 'é🙂xy'[1:3] }} {{ 'abc'[5:] }}| {{ 'abc'[2:1] }}| {{ 'abc'[-9:9] }} {{ 'abcdef'[4:1:-1] }} {{ 'abcdef'[-9:-1:-1] }}| {{ 'abc'[none:2] }}
{{ numbers[1:] }} {{ numbers[::-1] }} {{ numbers[:0] }} {{ numbers[-2:9] }} {{ (1, 2, 3)[1:] }} {{ numbers[9:] }} {{ numbers[2:0:-1] }} {{ numbers[::-2] }}
{{ numbers[::0] }}
{{ numbers | first }} {{ numbers | last }} {{ 'abc' | first }} {{ 'abc' | last }} {{ [] | first }}| {{ [] | last }}| {{ table | first }} {{ table | list }} {{ 'ab' | list }}
{{ numbers | reverse | list }} {{ 'abc' | reverse }} {{ messages | map(attribute='role') | list }} {{ numbers | map('string') | join('+') }} {{ [' a ', 'b'] | map('trim') | list }} {{ messages | map(attribute='nope', default=0) | list }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'eq', 'user') | map(attribute='content') | list }} {{ [0, 1, '', 'a'] | select | list }} {{ [0, 1] | reject | list }} {{ numbers | select('odd') | list }} {{ numbers | select('gt', 1) | list }} {{ messages | selectattr('nope') | list }}
{{ 'yes' if messages | selectattr('role', 'equalto', 'nobody') }} {{ 'yes' if numbers | select('gt', 9) | list }}
{{ table | tojson }} {{ table | tojson(indent=2) }} {{ [] | tojson(indent=2) }} {{ {} | tojson(indent=2) }} {{ [[], {}] | tojson(indent=1) }}
{{ ["é🙂\x7f", "\n\t\"\\/\x01"] | tojson }} {{ ["é🙂\x7f"] | tojson(ensure_ascii=true) }} {{ table | tojson(sort_keys=true) }} {{ [1, {'a': 2}] | tojson(separators=(',', ':')) }} {{ 1.0 | tojson }} {{ 'a' | tojson }} {{ none | tojson }} {{ (1, 2) | tojson }} {{ table | tojson(indent=0) }} {{ table | tojson(indent='--') }}
{{ nothing | tojson }}
{{ table.b }} {{ table['b'] }} {{ table['items'] }} {{ table.get('b') }} {{ table.get('z') }} {{ table.get('z', 5) }} {{ table.keys() | list }} {{ table.values() | list }} {{ table.items() | list }} {{ table | items | list }}
{% for k, v in table.items() %}{{ k }}={{ v }};{% endfor %} {% for k in table %}{{ k }},{% endfor %} {% for k, v in table | items %}{{ loop.index }}{{ k }}{% endfor %}
{% for (a, b) in [(1, 2), [3, 4]] %}{{ a + b }} {% endfor %}
{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}
{% for x in numbers %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}
{% for x in numbers if x != 1 %}{{ loop.index }}:{{ x }}{{ loop.last }};{% endfor %} {% for x in numbers if x > 9 %}{{ x }}{% else %}empty{% endfor %}
{% for x in numbers %}{% for y in 'ab' %}{{ loop.index }}{{ y }}{% endfor %}{{ loop.index }}{% endfor %}
{% for x in numbers %}{% set outer = loop %}{% for y in [1] %}{{ outer.index }}{% endfor %}{% endfor %}
{% set x = 1 %}{% for i in numbers %}{% set x = x + i %}{{ x }},{% endfor %}{{ x }}
{% set ns = namespace(x=1, y='a') %}{% for i in numbers %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.z }}|{{ ns['x'] }}
{% set x.y = 1 %}
{% if true %}{% set x = 2 %}{% endif %}{{ x }} {% if 0 %}a{% elif '' %}b{% elif 1 %}c{% else %}d{% endif %}
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %} {{ range(3) | list }} {{ range(1, 4) | list }} {{ range(5, 0, -2) | list }}
{% set a, b = 1, 2 %}{{ a }}{{ b }} {% set t = 1, 2 %}{{ t }} {{ 1, 2 }} {{ (1) }} {{ () }} {{ (1,) }}
{% set x %}  block {{ 1 }}␤{% endset %}[{{ x }}] {% set y | trim | upper %} up {% endset %}[{{ y }}] {% filter upper %}shout {{ 'x' }}{% endfilter %}
{% macro f(a, b=2, c=b) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }} {{ f(1, 3) }} {{ f(1, c=9) }} {{ f() }} {{ f(a=5) | length }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(z=2) }}
{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}
{% macro f() %}{{ outer }}{% endmacro %}{% set outer = 'seen' %}{{ f() }}{% for i in [1] %}{% set outer = 'x' %}{{ f() }}{% endfor %}
{%- macro f(role) -%}  <{{ role }}>  {%- endmacro -%}  [{{ f('a') }}]
a  {%- if true -%}  b  {%- endif -%}  c
a␤  {% if true %}␤  b␤  {% endif %}␤c
a␤  {%+ if true %}␤  b␤  {% endif +%}␤c
  {% set x = 1 %}  {{ x }}  {% set y = 2 %}␤end
  {# comment #}␤a {# more #} b {#- less -#} c
  {{ 1 }}␤  {{- 2 -}}␤  3
x {%- for i in [1, 2] %}␤  {{ i }}␤{%- endfor %} y
{{ 'keeps' }}
{{ {'a': {'b': 1}}['a']['b'] }} {{ {'a': {'b': 1}}.a.b }} {{ {'a': {}} }}
{{ messages[0]['content'] }} {{ messages[-1].content }} {{ messages[1:][0].role }} {{ (messages | first).role }} {{ messages[0].content.upper().lower() }} {{ messages[0]['role'].split('s')[0] }}
{{ '%' }} {{ '}}' }} {{ "%}" }} {% if '%}' == "%}" %}ok{% endif %}
{{ [1, 2] + [3] }} {{ (1,) + (2,) }} {{ 'a' + 'b' }} {{ 'ab' * 3 }} {{ 'ab' * 0 }}|
{{ 1 + 'a' }}
{{ 'a' + 1 }}
{{ none + 'a' }}
{{ 1 / 0 }}
{{ 'a' < 1 }}
{{ '3' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ 2.9 | int }} {{ ' -4 ' | int }} {{ true | int }} {{ none | int }} {{ 5 | string + 'x' }}
{{ 'a\nb\n\nc' | indent }} {{ 'a\nb' | indent(2) }} {{ 'a\nb' | indent(2, true) }} {{ 'a\n\nb' | indent(1, blank=true) }} {{ 'a\nb' | indent('> ', first=true) }}
{{ numbers.index(1) }} {{ numbers.count(1) }}
{{ numbers.index(9) }}
{{ messages.append(1) }}
{% if messages[0].content is string and not (messages[0].content is mapping) or false %}yes{% endif %} {{ 1 if messages and not tools else 2 }}
{{ not 1 == 2 }} {{ 1 == 1 and 2 == 2 }} {{ 1 + 1 == 2 }} {{ 'a' ~ 'b' == 'ab' }} {{ 2 * 3 ~ 4 }} {{ -1 | string }}
{{ 1 ~ 2 + 3 }}
{{ 1 in [1] == true }}
{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% if not loop.last %}, {% endif %}{% endfor %}
{% for m in messages | reverse %}{{ m.role[0] }}{% endfor %} {% for m in messages | selectattr('role', 'eq', 'user') %}{{ loop.index }}{{ loop.length }}{% endfor %}
{% unknown %}
{{ 1 | unknown }}
{{ 1 is unknown }}
{% if true %}
{{ 1 + }}
{{ 'open }}
{{ (1 }}
{% endif %}
{% for x in %}{% endfor %}
{# never closed
{{ 1 2 }}
{% break %}
line␍␤breaks␍{{ 1 }}␍␤␤
ends with a break␤
{{ 'x' }}␤␤
␤{% if true %}␤␤x{% endif %}␤
␤
  ␤  {%- if true %} a {% endif %}
{{+ 1 }}
{%- set x = 1 -%}␤␤ y
{{ 1 -}}␤␤ z
{% if true -%}␤ z{% endif %}
{{ '{{ x }}' }}
"""

PIECES = {f"p{i}": line.replace("␤", "\n").replace("␍", "\r")
          for i, line in enumerate(_SOURCES.strip("\n").split("\n") + [""])}
