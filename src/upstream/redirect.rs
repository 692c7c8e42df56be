//! Redirects: how far they are followed, and what is left behind on the way.

use http::{HeaderMap, StatusCode, header::LOCATION};
use percent_encoding::percent_decode_str;
use url::Url;

use super::{
    Error,
    answer::{Answer, Source, request_line},
    client::{Client, Outgoing},
    trust,
};

/// How many redirects are followed for one request.
const MAX_REDIRECTS: u32 = 5;

/// What a redirect means to the one who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redirects {
    /// The way to the answer.
    Follow,
    /// The answer. Only one to the same path on the same host, such as a blanket move to another
    /// scheme or port, says nothing and is followed.
    AreAnswers,
    /// The way to the answer if its path ends like the one that was asked, in what is asked for.
    /// Any other is the answer: it leads to a page for people.
    ToTheSame,
}

/// Sends `outgoing` and follows its redirects. `Authorization` is dropped for good once one leads
/// to another host (a storage service refuses a second kind of authentication, and a stranger
/// must not see it); everything else is sent again.
pub(super) async fn follow(
    client: &Client,
    mut outgoing: Outgoing,
    redirects: Redirects,
) -> Result<Answer, Error> {
    let asked = outgoing.url.clone();
    let mut source = Source::Asked;
    for _ in 0..=MAX_REDIRECTS {
        let mut answer = client.send(&outgoing).await?;
        answer.source = source;
        let Some(location) = location(answer.status, &answer.headers) else {
            return Ok(answer);
        };
        if redirects == Redirects::ToTheSame && !leads_to_the_same(&outgoing.url, &location) {
            return Ok(answer);
        }
        let next = trust::checked_step(&outgoing.url, &location)?;
        let is_same_host = trust::is_same_host(&asked, &next);
        let is_same_place = is_same_host && outgoing.url.path() == next.path();
        if redirects == Redirects::AreAnswers && !is_same_place {
            return Ok(answer);
        }
        if !is_same_host {
            outgoing.authorization = None;
            source = Source::Elsewhere;
        }
        outgoing.url = next;
        outgoing.is_redirected = true;
    }
    let request = request_line(&outgoing.method, &asked);
    Err(Error::Invalid(format!("{request}: more than {MAX_REDIRECTS} redirects")))
}

fn leads_to_the_same(from: &Url, location: &str) -> bool {
    from.join(location).is_ok_and(|to| end(from) == end(&to))
}

/// The last two parts of a path: `referrers/sha256:…`.
fn end(url: &Url) -> Option<String> {
    let path = percent_decode_str(url.path()).decode_utf8().ok()?;
    let (rest, last) = path.rsplit_once('/')?;
    let (_, kind) = rest.rsplit_once('/')?;
    Some(format!("{kind}/{last}"))
}

/// Where a redirect leads; `None` for every other answer.
pub(super) fn location(status: StatusCode, headers: &HeaderMap) -> Option<String> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = std::str::from_utf8(headers.get(LOCATION)?.as_bytes()).ok()?;
    Some(location.to_owned())
}
