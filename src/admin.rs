//! The admin API as a function from request to response: health, metrics, upstreams, and the commands
//! on content. It has no listener: [`crate::server`] serves it on `admin.listen` and on `admin.sock`,
//! and a command on a directory that no daemon uses calls it in its own process.
//!
//! Health, metrics and upstreams are for whoever can reach them. Everything else names images, some of
//! them private, or changes something, and is for the [trusted](Authority) only. What changes something is
//! a POST with a JSON body, which no page of a web browser can send to another host unasked.

mod answer;
pub mod events;
mod images;
mod near;
mod page;
mod pins;
mod refusal;
mod removal;
mod scrub;
mod sweep;
mod token;
mod upstreams;
mod usage;
mod work;

use std::{error::Error, fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

pub use answer::Body;
pub use token::Token;
pub use upstreams::Upstreams;

use crate::{metrics::Metrics, mirror::Mirror, store::Store};
use page::{Page, Question};
use refusal::Refusal;
use work::{Running, Work};

/// Answers the admin API; clones share their state.
#[derive(Clone)]
pub struct Admin {
    metrics: Arc<Metrics>,
    ready: Arc<Ask>,
    upstreams: Upstreams,
    content: Content,
    token: Token,
    work: Work,
}

/// What the commands on content work on.
#[derive(Clone)]
pub struct Content {
    /// Where content is.
    pub store: Store,
    /// What fetches it.
    pub mirror: Arc<Mirror>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// Whoever reaches `admin.listen`; with the token in `Authorization`, as good as trusted.
    Public,
    /// Who could open `admin.sock`, or this process itself.
    Trusted,
}

/// Whether pulls can be served now.
#[derive(Clone, Debug)]
pub enum Readiness {
    /// As they should be.
    Ready,
    /// Yes, but there is something an operator should see to.
    Impaired(String),
    /// No, for this reason.
    NotReady(String),
}

/// Says whether pulls can be served now. It must not block.
type Ask = dyn Fn() -> Readiness + Send + Sync;

impl Admin {
    /// An admin API that shows `metrics` and `upstreams`, works on `content`, believes who has `token`, and
    /// asks `ready` on every readiness probe.
    pub fn new(
        metrics: Arc<Metrics>,
        ready: impl Fn() -> Readiness + Send + Sync + 'static,
        upstreams: Upstreams,
        content: Content,
        token: Token,
    ) -> Admin {
        let ready = Arc::new(ready);
        Admin { metrics, ready, upstreams, content, token, work: Work::default() }
    }

    /// The answer to one request. The body goes with HEAD too; the server leaves it out.
    pub async fn answer<B>(&self, request: Request<B>, authority: Authority) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let answered = self.try_answer(request, authority).await;
        answered.unwrap_or_else(Refusal::into_response)
    }

    /// Begins nothing more that changes something, ends long operations early, and waits for what is
    /// running: what was answered is in the store when it closes.
    pub async fn settle(&self) {
        self.work.end().await;
    }

    async fn try_answer<B>(
        &self,
        request: Request<B>,
        authority: Authority,
    ) -> Result<Response<Body>, Refusal>
    where
        B: http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let page = Page::at(request.uri().path()).ok_or(Refusal::NoSuchPage)?;
        page.check_method(request.method())?;
        self.admit(page, request.headers(), authority).await?;
        let question = Question::read(request, page).await?;
        self.show(page, &question).await
    }

    /// Whether this page is for whoever asks.
    async fn admit(
        &self,
        page: Page,
        headers: &HeaderMap,
        authority: Authority,
    ) -> Result<(), Refusal> {
        match authority {
            Authority::Public if !page.is_public() => self.token.check(headers).await,
            Authority::Public | Authority::Trusted => Ok(()),
        }
    }

    async fn show(&self, page: Page, question: &Question) -> Result<Response<Body>, Refusal> {
        match page {
            Page::Health => Ok(answer::text("ok\n")),
            Page::Readiness => self.readiness(),
            Page::Metrics => Ok(self.metrics()),
            Page::Upstreams => Ok(answer::document(&self.upstreams.document())),
            Page::Images => self.images(question).await,
            Page::Usage => self.usage(question).await,
            Page::Scrub => self.scrub(question, self.begin()?).await,
            Page::Sweep => self.sweep(question, self.begin()?),
            Page::Pin => self.pin(question, self.begin()?).await,
            Page::Unpin => self.unpin(question, self.begin()?).await,
            Page::Remove => self.remove(question, self.begin()?).await,
        }
    }

    /// Begins a change, which takes what is returned and keeps it until it has ended.
    fn begin(&self) -> Result<Running, Refusal> {
        self.work.begin().ok_or(Refusal::Stopping)
    }

    fn readiness(&self) -> Result<Response<Body>, Refusal> {
        match (self.ready)() {
            Readiness::Ready => Ok(answer::text("ready\n")),
            // A mirror that streams through is of more use to its clients than none, and a load
            // balancer would have none for them: every replica may have the same disk.
            Readiness::Impaired(reason) => Ok(answer::text(format!("ready; {reason}\n"))),
            Readiness::NotReady(reason) => Err(Refusal::NotReady(reason)),
        }
    }

    fn metrics(&self) -> Response<Body> {
        self.upstreams.show_ratelimits(&self.metrics);
        answer::of_kind("text/plain; version=0.0.4; charset=utf-8", self.metrics.encode())
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
