//! What is not answered, and why: the only place of the admin API with status codes.

use std::fmt::Display;

use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{ALLOW, WWW_AUTHENTICATE},
};

use super::{
    answer::{self, Body},
    page::PAGES,
};

/// Why a request is refused.
#[derive(Debug)]
pub(super) enum Refusal {
    NoSuchPage,
    /// The page is asked for by one of these methods.
    Method(&'static str),
    /// Only with the token.
    WrongToken,
    /// Not over TCP, for there is no token.
    NoToken,
    /// The body of a change says that it is something else than JSON.
    NotJson,
    TooLong,
    /// The question makes no sense.
    Wrong(String),
    /// What it is about is not here.
    NotHere(String),
    /// Pulls cannot be served now.
    NotReady(String),
    /// Nothing is begun any more.
    Stopping,
    /// The disk or this process fails.
    Failed(String),
}

impl Refusal {
    pub(super) fn failed(reason: impl Display) -> Refusal {
        Refusal::Failed(reason.to_string())
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = answer::text(self.text());
        *response.status_mut() = self.status();
        if let Some((name, value)) = self.header() {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn status(&self) -> StatusCode {
        match self {
            Refusal::NoSuchPage | Refusal::NotHere(_) => StatusCode::NOT_FOUND,
            Refusal::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::WrongToken => StatusCode::UNAUTHORIZED,
            Refusal::NoToken => StatusCode::FORBIDDEN,
            Refusal::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Wrong(_) => StatusCode::BAD_REQUEST,
            Refusal::NotReady(_) | Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn header(&self) -> Option<(HeaderName, &'static str)> {
        match self {
            Refusal::Method(allowed) => Some((ALLOW, allowed)),
            Refusal::WrongToken => Some((WWW_AUTHENTICATE, "Bearer realm=\"larder\"")),
            Refusal::NoSuchPage
            | Refusal::NoToken
            | Refusal::NotJson
            | Refusal::TooLong
            | Refusal::Wrong(_)
            | Refusal::NotHere(_)
            | Refusal::NotReady(_)
            | Refusal::Stopping
            | Refusal::Failed(_) => None,
        }
    }

    /// One line.
    fn text(&self) -> String {
        match self {
            Refusal::NoSuchPage => {
                let pages = PAGES.map(|(path, _)| path).join(", ");
                format!("no such page; there are {pages}\n")
            }
            Refusal::Method(allowed) => format!("only {allowed}\n"),
            Refusal::WrongToken => {
                "only with the token: Authorization: Bearer and what is in admin.token_file\n".into()
            }
            Refusal::NoToken => {
                "only over admin.sock in the data directory, as the commands of larder do it; to allow it here, set admin.token_file\n".into()
            }
            Refusal::NotJson => "only with Content-Type: application/json\n".into(),
            Refusal::TooLong => "the body is too long\n".into(),
            Refusal::Wrong(reason)
            | Refusal::NotHere(reason)
            | Refusal::NotReady(reason)
            | Refusal::Failed(reason) => format!("{reason}\n"),
            Refusal::Stopping => "Larder is stopping; try again in a moment\n".into(),
        }
    }
}
