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

use crate::{config::Proxy, upstream::basic::basic};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The longest answer to CONNECT that is read.
const MAX_HEAD: usize = 64 * 1024;

/// What a proxy says in place of a tunnel, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("it answers {status} to CONNECT; {remedy}")]
pub(super) struct Refusal {
    status: StatusCode,
    remedy: &'static str,
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
        StatusCode::OK => Ok(upgrade::on(response).await?),
        // tinyproxy says 401 to a wrong password.
        StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED => {
            let remedy = "write a right user:password@ before its host";
            Err(Refusal { status, remedy }.into())
        }
        _ => Err(Refusal { status, remedy: "may it lead there?" }.into()),
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::config::Identity;

    fn proxy() -> Proxy {
        let identity = Identity::User { name: "me".to_owned(), password: "s3cret".to_owned() };
        Proxy { url: "http://proxy.test:3128".parse().unwrap(), identity }
    }

    /// What a proxy that says `answer` and then hangs up was asked, and what came of it.
    async fn ask(answer: Vec<u8>) -> (String, Result<TokioIo<DuplexStream>, BoxError>) {
        let (ours, mut theirs) = duplex(1024 * 1024);
        let answering = async {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(theirs.read_u8().await.unwrap());
            }
            theirs.write_all(&answer).await.unwrap();
            drop(theirs);
            String::from_utf8(asked).unwrap()
        };
        let proxy = proxy();
        let tunnel = tunnel(TokioIo::new(ours), &proxy, "registry.test:443");
        let (asked, outcome) = tokio::join!(answering, tunnel);
        (asked, outcome)
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_by_host_port_and_login() {
        for answer in [
            "HTTP/1.1 200 Connection established\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 Fine\r\nvia: x\r\n\r\n",
        ] {
            let (asked, outcome) = ask(answer.into()).await;
            assert!(outcome.is_ok(), "{answer}: {:?}", outcome.err());
            assert!(asked.starts_with("CONNECT registry.test:443 HTTP/1.1\r\n"), "{asked}");
            assert!(asked.contains("\r\nhost: registry.test:443\r\n"), "{asked}");
            let login = "\r\nproxy-authorization: Basic bWU6czNjcmV0\r\n";
            assert!(asked.contains(login), "{asked}");
        }
    }

    #[tokio::test]
    async fn whatever_else_a_proxy_says_is_no_tunnel() {
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(MAX_HEAD));
        let table = [
            (
                "HTTP/1.1 407 No\r\n\r\n",
                "it answers 407 Proxy Authentication Required to CONNECT; ",
            ),
            (
                "HTTP/1.1 403 No\r\ncontent-length: 99\r\n\r\n",
                "it answers 403 Forbidden to CONNECT",
            ),
            (
                "HTTP/1.1 302 Found\r\nlocation: http://x/\r\n\r\n",
                "it answers 302 Found to CONNECT",
            ),
            ("HTTP/1.1 200 OK\r\n\r\nhello", "it sends more than its answer to CONNECT"),
            ("SSH-2.0-OpenSSH\r\n\r\n", "invalid HTTP version parsed"),
            ("HTTP/1.1 200", ""),
            ("", ""),
            (&endless, "message head is too large"),
        ];
        for (answer, problem) in table {
            let (_, outcome) = ask(answer.into()).await;
            let error = outcome.map(drop).unwrap_err().to_string();
            assert!(error.contains(problem), "{answer:.40}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
