//! A `multipart/byteranges` body, taken apart as strictly as the RFC allows.

use bytes::Bytes;

use super::Response;

/// One part: its `Content-Range` and its bytes.
pub type Part = (String, Bytes);

/// The parts of a 206, which may be one in the form of its own.
///
/// # Panics
/// When anything about it is not as it should be.
pub async fn parts(response: Response) -> Vec<Part> {
    assert_eq!(response.status, 206, "{response:?}");
    let content_type = response.header("content-type").unwrap().to_owned();
    let length: usize = response.header("content-length").unwrap().parse().unwrap();
    let content_range = response.header("content-range").map(str::to_owned);
    let body = response.bytes().await;
    assert_eq!(body.len(), length);
    if let Some(content_range) = content_range {
        assert_eq!(content_type, "application/octet-stream");
        return vec![(content_range, body)];
    }
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert!(boundary.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{boundary}");
    split(&body, boundary)
}

fn split(mut rest: &[u8], boundary: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    while let Some(part) = rest.strip_prefix(format!("--{boundary}\r\n").as_bytes()) {
        let head_end = find(part, b"\r\n\r\n").unwrap();
        let content_range = content_range(std::str::from_utf8(&part[..head_end]).unwrap());
        let body = &part[head_end + 4..];
        let body_end = find(body, format!("\r\n--{boundary}").as_bytes()).unwrap();
        parts.push((content_range, Bytes::copy_from_slice(&body[..body_end])));
        rest = &body[body_end + 2..];
    }
    assert_eq!(rest, format!("--{boundary}--\r\n").as_bytes());
    parts
}

fn content_range(head: &str) -> String {
    let lines: Vec<&str> = head.split("\r\n").collect();
    assert_eq!(lines[0], "Content-Type: application/octet-stream");
    assert_eq!(lines.len(), 2, "{lines:?}");
    lines[1].strip_prefix("Content-Range: ").unwrap().to_owned()
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}
