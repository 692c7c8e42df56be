//! What a request asks for, in one form for all versions of HTTP.

use http::{HeaderValue, Request, Uri, header};

/// Turns the absolute form of HTTP/1.1 (RFC 9112, section 3.2.2), and that of HTTP/2 (RFC 9113,
/// section 8.3.1), into the usual one: path and query in the URI, the host in `Host`. What names
/// no path (CONNECT) stays as it is.
pub(super) fn in_origin_form<B>(mut request: Request<B>) -> Request<B> {
    let uri = request.uri();
    let (Some(authority), Some(path)) = (uri.authority(), uri.path_and_query()) else {
        return request;
    };
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    let host = HeaderValue::from_str(host);
    let target = Uri::from(path.clone());
    if let Ok(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = target;
    request
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn the_host_is_in_the_header_and_the_rest_in_the_uri() {
        let table = [
            ("/v2/?n=1", Some("a"), "/v2/?n=1", Some("a")),
            ("http://b:5000/v2/?n=1", Some("a"), "/v2/?n=1", Some("b:5000")),
            ("https://b", None, "/", Some("b")),
            ("http://me:s3cret@[::1]:5000/v2/", None, "/v2/", Some("[::1]:5000")),
            ("*", Some("a"), "*", Some("a")),
        ];
        for (uri, host, expected_uri, expected_host) in table {
            let mut request = Request::builder().uri(uri);
            if let Some(host) = host {
                request = request.header(header::HOST, host);
            }
            let request = in_origin_form(request.body(()).unwrap());
            assert_eq!(request.uri().to_string(), expected_uri, "{uri}");
            let found = request.headers().get(header::HOST).map(|host| host.to_str().unwrap());
            assert_eq!(found, expected_host, "{uri}");
        }
    }

    #[test]
    fn a_tunnel_stays_as_it_is() {
        let request = Request::builder().method(Method::CONNECT).uri("b:443").body(()).unwrap();
        assert_eq!(in_origin_form(request).uri(), "b:443");
    }
}
