//! Tunnels through a proxy (RFC 9110, section 9.3.6).

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::PROXY_AUTHORIZATION};
use http_body_util::Empty;
use hyper::{
    body::Incoming,
    client::conn::http1,
    rt::{Read, Write},
    upgrade,
};

use super::basic::basic;
use crate::config::Proxy;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The longest answer to CONNECT that is read.
const MAX_HEAD: usize = 64 * 1024;

/// What a proxy says in place of a tunnel.
#[derive(Debug, thiserror::Error)]
#[error("it answers {status} to CONNECT{remark}")]
struct Refusal {
    status: StatusCode,
    remark: &'static str,
}

/// The value of `Proxy-Authorization`; `None` if the proxy knows nobody.
pub(super) fn authorization(proxy: &Proxy) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(basic(&proxy.identity)?).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Turns a connection to `proxy` into one to `target`, a host with its port. Takes as long as the
/// proxy likes.
pub(super) async fn tunnel<S>(stream: S, proxy: &Proxy, target: &str) -> Result<S, BoxError>
where
    S: Read + Write + Send + Unpin + 'static,
{
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = target.parse()?;
    let host = HeaderValue::try_from(target)?;
    request.headers_mut().insert(http::header::HOST, host);
    request.headers_mut().extend(authorization(proxy).map(|value| (PROXY_AUTHORIZATION, value)));

    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake(stream).await?;
    let asked = async { upgraded(sender.send_request(request).await?).await };
    let connection = async { Ok(connection.with_upgrades().await?) };
    let (upgraded, ()) = tokio::try_join!(asked, connection)?;
    let parts =
        upgraded.downcast::<S>().map_err(|_| "the tunnel is not the connection that was made")?;
    match parts.read_buf.is_empty() {
        true => Ok(parts.io),
        // In TLS, and nothing else is spoken in tunnels, the client begins.
        false => Err("it sends more than its answer to CONNECT".into()),
    }
}

async fn upgraded(response: Response<Incoming>) -> Result<upgrade::Upgraded, BoxError> {
    let status = response.status();
    match status {
        _ if status.is_success() => Ok(upgrade::on(response).await?),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            let remark = "; write a right user:password@ before its host";
            Err(Refusal { status, remark }.into())
        }
        _ => Err(Refusal { status, remark: "" }.into()),
    }
}
