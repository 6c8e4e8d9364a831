"""Small repairs of words that several sources need."""

import polars as pl

# &amp; comes last, so that &amp;lt; becomes &lt; and not a tag.
_ENTITIES = (("&quot;", '"'), ("&#34;", '"'), ("&#39;", "'"), ("&apos;", "'"), ("&nbsp;", " "), ("&lt;", "<"))
_MORE_ENTITIES = (("&gt;", ">"), ("&amp;", "&"))
_ESCAPES = (("\\n", " "), ("\\r", " "), ("\\t", " "), ('\\"', '"'), ("\\/", "/"), ("\\\\", "\\"))


def plain_words(text: pl.Expr) -> pl.Expr:
    """Text without HTML: tags become spaces, entities their characters, runs of white space one space; blank is null."""
    text = text.str.replace_all(r"<[^<>]*>", " ")
    for entity, character in (*_ENTITIES, *_MORE_ENTITIES):
        text = text.str.replace_all(entity, character, literal=True)
    text = text.str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.when(text.str.len_bytes() > 0).then(text)


def join_json_list(text: pl.Expr, separator: str) -> pl.Expr:
    """All texts in a JSON list, however deep, joined; anything that is no list stays as it is."""
    inner = text.str.extract_all(r'"(?:[^"\\]|\\.)*"').list.eval(pl.element().str.slice(1).str.head(-1))
    joined = inner.list.join(separator).str.replace_all(r"\\u[0-9a-fA-F]{4}", " ")
    for escape, character in _ESCAPES:
        joined = joined.str.replace_all(escape, character, literal=True)
    return pl.when(text.str.starts_with("[")).then(joined).otherwise(text)
