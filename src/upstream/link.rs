//! `Link` (RFC 8288), as far as it says where a list goes on.

use std::borrow::Cow;

use http::{HeaderMap, header::LINK};

use super::{Error, answer::Answer, quoted::rest_of_quoted};

/// The query that asks for the page after this one. The rest of the link is not used: a registry
/// behind a proxy may name a host, a scheme or a path that leads nowhere, and none but the list's
/// own would be right.
pub(super) fn next_query(answer: &Answer) -> Result<Option<String>, Error> {
    let Some(target) = next(&answer.headers) else {
        return Ok(None);
    };
    let query = answer.url.join(target).ok().and_then(|url| url.query().map(str::to_owned));
    let wrong = || Error::Invalid(answer.describe(Some("the link to the next page has no query")));
    query.ok_or_else(wrong).map(Some)
}

/// The target of the first link with the relation `next`. What is not understood is skipped.
pub(super) fn next(headers: &HeaderMap) -> Option<&str> {
    headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).find_map(next_in)
}

fn next_in(value: &str) -> Option<&str> {
    let mut rest = value;
    loop {
        let (_, link) = rest.split_once('<')?;
        let (target, link) = link.split_once('>')?;
        let (parameters, others) = split_unquoted(link, ',');
        if is_next(parameters) {
            return Some(target);
        }
        rest = others;
    }
}

/// Whether the first `rel` lists `next`; later ones do not count (§3.3).
fn is_next(parameters: &str) -> bool {
    let mut rest = parameters;
    while !rest.is_empty() {
        let (parameter, others) = split_unquoted(rest, ';');
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name.trim().eq_ignore_ascii_case("rel") {
            let relations = unquoted(value.trim());
            let mut relations = relations.split_ascii_whitespace();
            return relations.any(|relation| relation.eq_ignore_ascii_case("next"));
        }
        rest = others;
    }
    false
}

fn unquoted(value: &str) -> Cow<'_, str> {
    match value.strip_prefix('"') {
        Some(quoted) => rest_of_quoted(&mut quoted.chars()).into(),
        None => value.into(),
    }
}

/// Splits at the first separator outside of quotes; without one, nothing is left over.
fn split_unquoted(text: &str, separator: char) -> (&str, &str) {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let is_end = |letter: char| {
        if std::mem::take(&mut is_escaped) {
            return false;
        }
        match letter {
            '\\' => is_escaped = is_quoted,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        letter == separator && !is_quoted
    };
    text.split_once(is_end).unwrap_or((text, ""))
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        let table = [
            (r#"</v2/a/tags/list?n=2&last=b>; rel="next""#, Some("/v2/a/tags/list?n=2&last=b")),
            ("<?last=b>;rel=next", Some("?last=b")),
            ("<https://r.test/x> ; REL = Next", Some("https://r.test/x")),
            (r#"<a,;b>; title="x, y; rel=prev"; rel="prev next""#, Some("a,;b")),
            (r#"<a>; rel="prev", <b>; rel="next", <c>; rel="next""#, Some("b")),
            (r#"<a>; title="\"<x>; rel=next, "; rel="last", <b>; rel=next"#, Some("b")),
            (r#"<a>; rel="prev"; rel="next""#, None),
            (r#"<a>; rel="nextish""#, None),
            (r#"<a>; title="rel=next""#, None),
            ("<a>", None),
            ("<a; rel=next", None),
            ("a; rel=next", None),
            (r#"<a>; rel="next"#, Some("a")),
            (r#"<a>; rel="ne\xt""#, Some("a")),
            (r#"<a>; rel="ne\\xt""#, None),
            (r#"<a>; title="open, <b>; rel=next"#, None),
            ("><,;\"=", None),
            ("", None),
        ];
        for (value, want) in table {
            let headers = HeaderMap::from_iter([(LINK, HeaderValue::from_static(value))]);
            assert_eq!(next(&headers), want, "{value}");
        }
    }

    #[test]
    fn every_line_counts() {
        let mut headers = HeaderMap::new();
        assert_eq!(next(&headers), None);
        for value in [&b"<\xff>; rel=next"[..], b"<a>; rel=prev", b"<b>; rel=next"] {
            headers.append(LINK, HeaderValue::from_bytes(value).unwrap());
        }
        assert_eq!(next(&headers), Some("b"));
    }
}
