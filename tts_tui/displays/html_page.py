"""The template of the page that `export.html` fills."""

from __future__ import annotations

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="generator" content="tts-tui">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ground: #ffffff; --ink: #1b1b1f; --dim: #5f6168; --line: #d5d7dd; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ground: #16171b; --ink: #e6e6ea; --dim: #9a9ca5; --line: #373a42; }}
}}
body {{ background: var(--ground); color: var(--ink); margin: 2rem auto; padding: 0 1.5rem; max-width: 75rem;
  font: 15px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.25rem; white-space: pre-wrap; overflow-wrap: anywhere; }}
h2 {{ font-size: 1rem; margin-top: 2rem; }}
p, .n {{ color: var(--dim); }}
.facts {{ display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem; }}
.facts dt {{ color: var(--dim); }}
.facts dd {{ margin: 0; overflow-wrap: anywhere; }}
.facts dd:first-of-type {{ font-weight: bold; }}
table {{ border-collapse: collapse; }}
td {{ padding: .1rem 1rem .1rem 0; vertical-align: top; overflow-wrap: anywhere; }}
main {{ overflow-wrap: anywhere; }}
main > div, main > details, .in > div, .in > details {{ margin: .3rem 0; }}
main details, main > div {{ content-visibility: auto; contain-intrinsic-size: auto 1.6rem; }}
main bdi {{ white-space: pre-wrap; }}
code {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .9em; }}
summary {{ cursor: pointer; }}
summary:focus-visible {{ outline: 2px solid; }}
.in {{ border-left: 1px solid var(--line); margin-left: .4rem; padding-left: 1rem; }}
.s {{ display: inline-block; min-width: 2.2em; padding: 0 .3em; border-radius: 3px; text-align: center; }}
.s, .n, .bar {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .85em; }}
.off {{ color: var(--dim); }}
@media print {{
  body {{ margin: 0; max-width: none; font-size: 10pt; }}
  .s {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
  main details, main > div {{ content-visibility: visible; }}
  details::details-content {{ content-visibility: visible; block-size: auto; }}
}}
{heat}
</style>
</head>
<body>
{body}</body>
</html>
"""
