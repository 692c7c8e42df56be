//! The part of a list that a client asks for, and where it finds the next one.

use std::borrow::Cow;

use http::Uri;
use percent_encoding::percent_decode_str;

use super::RouteError;
use crate::oci::Registry;

/// A page of a list (distribution-spec, § Listing tags).
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// The list's path as the client wrote it.
    path: String,
    namespace: Option<Registry>,
    /// The most entries wanted.
    n: Option<usize>,
    /// The entry before the first one wanted.
    last: Option<String>,
}

/// The entries on a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed<'a, T> {
    /// In order.
    pub entries: &'a [T],
    /// Path and query of the next page. `None`: there is none.
    pub next: Option<String>,
}

impl Page {
    /// The page that `uri` asks for, whose `ns` is `namespace`.
    pub(super) fn parse(uri: &Uri, namespace: Option<&Registry>) -> Result<Page, RouteError> {
        Ok(Page {
            path: uri.path().to_owned(),
            namespace: namespace.cloned(),
            n: value(uri, "n").map(|n| number(&n)).transpose()?,
            last: value(uri, "last").map(Cow::into_owned),
        })
    }

    /// This page of `entries`, which are sorted.
    pub fn of<'a, T: AsRef<str>>(&self, entries: &'a [T]) -> Listed<'a, T> {
        let last = self.last.as_deref().unwrap_or_default();
        let start = entries.partition_point(|entry| entry.as_ref() <= last);
        let rest = entries.get(start..).unwrap_or_default();
        let Some((entries, left)) = self.n.and_then(|n| rest.split_at_checked(n)) else {
            return Listed { entries: rest, next: None };
        };
        let last = entries.last().filter(|_| !left.is_empty());
        let next = last.map(|last| self.after(last.as_ref(), entries.len()));
        Listed { entries, next }
    }

    fn after(&self, last: &str, n: usize) -> String {
        let namespace = self.namespace.as_ref();
        let namespace = namespace.map_or_else(String::new, |registry| format!("ns={registry}&"));
        format!("{}?{namespace}n={n}&last={last}", self.path)
    }
}

/// The decoded value of the first such key in the query. Other keys are ignored.
pub(super) fn value<'a>(uri: &'a Uri, key: &str) -> Option<Cow<'a, str>> {
    let mut pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == key)?;
    Some(percent_decode_str(value).decode_utf8_lossy())
}

/// A number too large to count with is more than there is of anything.
fn number(text: &str) -> Result<usize, RouteError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RouteError::PageSize);
    }
    Ok(text.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Tag;

    fn tags() -> Vec<Tag> {
        ["1", "10", "2", "B", "a"].map(|tag| tag.parse().unwrap()).to_vec()
    }

    fn page(query: &str) -> (String, Option<String>) {
        let registry: Registry = "quay.io:443".parse().unwrap();
        let namespace = query.contains("ns=").then_some(&registry);
        let uri = format!("/v2/a%2Fb/tags/list?{query}").parse().unwrap();
        let tags = tags();
        let listed = Page::parse(&uri, namespace).unwrap().of(&tags);
        let names: Vec<_> = listed.entries.iter().map(Tag::as_str).collect();
        (names.join(" "), listed.next)
    }

    #[test]
    fn a_page_begins_after_last_and_names_the_next() {
        let next = |query: &str| Some(format!("/v2/a%2Fb/tags/list?{query}"));
        let table = [
            ("", "1 10 2 B a", None),
            ("x=1&last=", "1 10 2 B a", None),
            ("n=2", "1 10", next("n=2&last=10")),
            ("n=2&last=10", "2 B", next("n=2&last=B")),
            ("last=B&n=2", "a", None),
            ("n=4&x&last=1", "10 2 B a", None),
            ("n=3&ns=quay.corp", "1 10 2", next("ns=quay.io:443&n=3&last=2")),
            ("last=1%30", "2 B a", None),
            ("last=15", "2 B a", None),
            ("last=a", "", None),
            ("last=%ff", "", None),
            ("n=0", "", None),
            ("n=0&last=1", "", None),
            ("n=5", "1 10 2 B a", None),
            ("n=99999999999999999999999", "1 10 2 B a", None),
            ("n=1&n=2", "1", next("n=1&last=1")),
        ];
        for (query, names, next) in table {
            assert_eq!(page(query), (names.to_owned(), next), "{query}");
        }
    }

    #[test]
    fn a_page_has_a_number_of_tags() {
        for query in ["n=", "n=x", "n=-1", "n=+1", "n=1.5", "n=%31%20"] {
            let uri = format!("/v2/a/tags/list?{query}").parse().unwrap();
            assert_eq!(Page::parse(&uri, None), Err(RouteError::PageSize), "{query}");
        }
    }
}
