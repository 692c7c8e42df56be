//! The token server of an upstream: anyone may pull, [`PUSHER`] may push.
//!
//! It speaks the GET of the registry token protocol (distribution's `spec/auth/token.md`) and
//! answers with JWTs that the registry verifies by the certificate in their header.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Identity;

/// The one account, as `user:password`.
pub const PUSHER: &str = "pusher:e2e";

/// The `iss` that the registry is told to trust.
pub const ISSUER: &str = "larder-e2e";

/// How long a token is good for.
const LIFETIME_SECONDS: u64 = 60;

/// A token server on a port of its own, until dropped.
pub struct TokenServer {
    realm: String,
    office: Arc<Office>,
    _runtime: Runtime,
}

impl TokenServer {
    /// Starts answering over TLS on 127.0.0.1.
    pub fn start(identity: Identity) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let realm = format!("https://{}/token", listener.local_addr().unwrap());
        let office = Arc::new(Office { identity, requests: AtomicUsize::new(0) });
        runtime.spawn(accept(listener, Arc::clone(&office)));
        Self { realm, office, _runtime: runtime }
    }

    /// Where tokens are to be had.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// How often a token was asked for.
    pub fn requests(&self) -> usize {
        self.office.requests.load(Ordering::Relaxed)
    }
}

struct Office {
    identity: Identity,
    requests: AtomicUsize,
}

async fn accept(listener: TcpListener, office: Arc<Office>) {
    let tls = TlsAcceptor::from(office.identity.server_config());
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, tls.clone(), Arc::clone(&office)));
    }
}

/// Serves one connection; a client that breaks it off will say so itself.
async fn serve(stream: TcpStream, tls: TlsAcceptor, office: Arc<Office>) {
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let answer = service_fn(|request: Request<Incoming>| {
        let response = office.answer(&request);
        async { Ok::<_, Infallible>(response) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

impl Office {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let pusher = format!("Basic {}", BASE64_STANDARD.encode(PUSHER));
        let may_push = match request.headers().get(header::AUTHORIZATION) {
            None => false,
            Some(credentials) if *credentials == pusher => true,
            Some(_) => return response(StatusCode::UNAUTHORIZED, &json!({})),
        };
        let query = request.uri().query().unwrap_or_default();
        let query: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
        let values = |key| query.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_ref());
        let access: Vec<Value> = values("scope").filter_map(|s| grant(s, may_push)).collect();
        let token = self.token(values("service").next().unwrap_or_default(), access);
        response(StatusCode::OK, &json!({ "token": token, "expires_in": LIFETIME_SECONDS }))
    }

    /// A JWT (RFC 7519) with the claims of distribution's `spec/auth/jwt.md`.
    fn token(&self, service: &str, access: Vec<Value>) -> String {
        let certificate = BASE64_STANDARD.encode(self.identity.certificate());
        let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [certificate] });
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let claims = json!({
            "iss": ISSUER, "sub": "", "aud": service, "jti": "e2e", "access": access,
            "iat": now, "nbf": now, "exp": now + LIFETIME_SECONDS,
        });
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let message = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let signature = encode(&self.identity.sign(&message));
        format!("{message}.{signature}")
    }
}

/// What of a scope such as `repository:library/busybox:pull,push` is granted.
fn grant(scope: &str, may_push: bool) -> Option<Value> {
    let (resource, actions) = scope.rsplit_once(':')?;
    let (kind, name) = resource.split_once(':')?;
    let actions: Vec<&str> =
        actions.split(',').filter(|action| may_push || *action == "pull").collect();
    Some(json!({ "type": kind, "name": name, "actions": actions }))
}

fn response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from(body.to_string()))
        .unwrap()
}
