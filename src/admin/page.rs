//! Which pages there are, who may see them, and how they are asked for.

use std::{borrow::Cow, error::Error, time::Duration};

use bytes::Bytes;
use http::{Method, Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::refusal::Refusal;

/// The longest body of a question.
const MAX_BODY: usize = 64 * 1024;

/// How long a client may take to send one.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A page of the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Health,
    Readiness,
    Metrics,
    Upstreams,
    Images,
    Usage,
    Scrub,
    Sweep,
    Pin,
    Unpin,
    Remove,
}

/// Every page, and where it is.
pub(super) const PAGES: [(&str, Page); 11] = [
    ("/healthz", Page::Health),
    ("/readyz", Page::Readiness),
    ("/metrics", Page::Metrics),
    ("/api/v1/upstreams", Page::Upstreams),
    ("/api/v1/images", Page::Images),
    ("/api/v1/usage", Page::Usage),
    ("/api/v1/scrub", Page::Scrub),
    ("/api/v1/sweep", Page::Sweep),
    ("/api/v1/pin", Page::Pin),
    ("/api/v1/unpin", Page::Unpin),
    ("/api/v1/remove", Page::Remove),
];

/// What a page is asked for with.
#[derive(Debug)]
pub(super) struct Question {
    query: String,
    body: Bytes,
}

impl Page {
    /// The page at a path.
    pub(super) fn at(path: &str) -> Option<Page> {
        PAGES.iter().find(|(place, _)| *place == path).map(|(_, page)| *page)
    }

    /// Whether it names no image and changes nothing: it is for whoever can reach it.
    pub(super) fn is_public(self) -> bool {
        match self {
            Page::Health | Page::Readiness | Page::Metrics | Page::Upstreams => true,
            Page::Images | Page::Usage | Page::Scrub | Page::Sweep => false,
            Page::Pin | Page::Unpin | Page::Remove => false,
        }
    }

    /// Whether it changes something: it is asked for by POST.
    pub(super) fn changes_something(self) -> bool {
        match self {
            Page::Health
            | Page::Readiness
            | Page::Metrics
            | Page::Upstreams
            | Page::Images
            | Page::Usage => false,
            Page::Scrub | Page::Sweep | Page::Pin | Page::Unpin | Page::Remove => true,
        }
    }

    /// Whether it is asked for like this.
    pub(super) fn check_method(self, method: &Method) -> Result<(), Refusal> {
        match (self.changes_something(), method) {
            (true, &Method::POST) | (false, &Method::GET | &Method::HEAD) => Ok(()),
            (true, _) => Err(Refusal::Method("POST")),
            (false, _) => Err(Refusal::Method("GET, HEAD")),
        }
    }
}

impl Question {
    /// Reads a request for a page, and its body where it may have one.
    pub(super) async fn read<B>(request: Request<B>, page: Page) -> Result<Question, Refusal>
    where
        B: http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let (head, body) = request.into_parts();
        let body = match page.changes_something() {
            true if !is_json(&head) => return Err(Refusal::NotJson),
            true => read_body(body).await?,
            false => Bytes::new(),
        };
        let query = head.uri.query().unwrap_or_default().to_owned();
        Ok(Question { query, body })
    }

    /// The parameters of the query, each with its value.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        url::form_urlencoded::parse(self.query.as_bytes())
    }

    /// What the body says.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Refusal::Wrong(format!("the body is not understood: {error}")))
    }
}

fn is_json(head: &http::request::Parts) -> bool {
    let stated = head.headers.get(CONTENT_TYPE).and_then(|stated| stated.to_str().ok());
    let stated = stated.and_then(|stated| stated.split(';').next());
    stated.is_some_and(|stated| stated.trim().eq_ignore_ascii_case("application/json"))
}

async fn read_body<B>(body: B) -> Result<Bytes, Refusal>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let body = Box::pin(Limited::new(body, MAX_BODY));
    let Ok(read) = timeout(BODY_TIMEOUT, body.collect()).await else {
        return Err(Refusal::Wrong("the body does not come".to_owned()));
    };
    match read {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::TooLong),
        Err(error) => Err(Refusal::Wrong(format!("the body ends early: {error}"))),
    }
}
