//! The read-only admin API as a function from request to response: health, readiness, metrics,
//! upstreams. It has no listener; [`crate::server`] serves it on `admin.listen`.

mod upstreams;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body_util::Full;

pub use upstreams::Upstreams;

use crate::metrics::Metrics;

/// Answers the admin API; clones share their state.
#[derive(Clone)]
pub struct Admin {
    metrics: Arc<Metrics>,
    ready: Arc<Readiness>,
    upstreams: Upstreams,
}

const NO_SUCH_PAGE: &str =
    "no such page; there are /healthz, /readyz, /metrics and /api/v1/upstreams\n";

/// Says whether pulls can be served now, or why not. It must not block.
type Readiness = dyn Fn() -> Result<(), String> + Send + Sync;

impl Admin {
    /// An admin API that shows `metrics` and `upstreams`, and asks `ready` on every readiness probe.
    pub fn new(
        metrics: Arc<Metrics>,
        ready: impl Fn() -> Result<(), String> + Send + Sync + 'static,
        upstreams: Upstreams,
    ) -> Admin {
        Admin { metrics, ready: Arc::new(ready), upstreams }
    }

    /// The answer to one request. The body goes with HEAD too; the server leaves it out.
    pub fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let endpoint = match path {
            "/healthz" => Admin::health,
            "/readyz" => Admin::readiness,
            "/metrics" => Admin::metrics,
            "/api/v1/upstreams" => Admin::upstreams,
            _ => return text(StatusCode::NOT_FOUND, NO_SUCH_PAGE),
        };
        if method != Method::GET && method != Method::HEAD {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        endpoint(self)
    }

    fn health(&self) -> Response<Full<Bytes>> {
        text(StatusCode::OK, "ok\n")
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        match (self.ready)() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        self.upstreams.show_ratelimits(&self.metrics);
        let mut page = text(StatusCode::OK, self.metrics.encode());
        page.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
        );
        page
    }

    fn upstreams(&self) -> Response<Full<Bytes>> {
        let mut page = text(StatusCode::OK, self.upstreams.document().to_string());
        page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        page
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Clock, refused::Refused};

    fn admin(ready: Result<(), String>) -> Admin {
        let upstreams = Upstreams::new(Vec::new(), Refused::new(Clock::system()));
        Admin::new(Arc::new(Metrics::new()), move || ready.clone(), upstreams)
    }

    fn status(admin: &Admin, method: Method, path: &str) -> u16 {
        admin.answer(&method, path).status().as_u16()
    }

    #[test]
    fn each_page_has_its_status() {
        let ready = admin(Ok(()));
        let table = [
            (Method::GET, "/healthz", 200),
            (Method::HEAD, "/healthz", 200),
            (Method::GET, "/readyz", 200),
            (Method::GET, "/metrics", 200),
            (Method::GET, "/api/v1/upstreams", 200),
            (Method::POST, "/metrics", 405),
            (Method::DELETE, "/api/v1/upstreams", 405),
            (Method::GET, "/", 404),
            (Method::DELETE, "/healthz/x", 404),
        ];
        for (method, path, expected) in table {
            assert_eq!(status(&ready, method.clone(), path), expected, "{method} {path}");
        }
        let draining = admin(Err("draining".to_owned()));
        assert_eq!(status(&draining, Method::GET, "/readyz"), 503);
        assert_eq!(status(&draining, Method::GET, "/healthz"), 200);
    }

    #[test]
    fn metrics_are_in_the_text_format() {
        let page = admin(Ok(())).answer(&Method::GET, "/metrics");
        let kind = page.headers().get(CONTENT_TYPE).unwrap();
        assert!(kind.to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    }
}
