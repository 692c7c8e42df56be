//! Answers, and their heads as bytes.

use std::{fs::File, ops::Range, sync::Arc};

use serde_json::json;

use crate::upstream::request::Request;

/// What a request gets.
pub struct Answer {
    status: u16,
    /// Header lines, each with its end.
    headers: String,
    pub body: Body,
}

/// What follows the head.
pub enum Body {
    Bytes(Arc<[u8]>),
    File { file: File, range: Range<u64> },
}

impl Answer {
    /// An answer with this status and body.
    pub fn new(status: u16, content_type: &str, body: Body) -> Answer {
        let headers = format!("Content-Type: {content_type}\r\n");
        Answer { status, headers, body }
    }

    /// JSON.
    pub fn json(status: u16, text: String) -> Answer {
        Answer::new(status, "application/json", Body::Bytes(Arc::from(text.into_bytes())))
    }

    /// An error with one of the codes of the distribution specification.
    pub fn error(status: u16, code: &str) -> Answer {
        Answer::json(status, json!({ "errors": [{ "code": code, "message": code }] }).to_string())
    }

    /// Adds a header.
    pub fn with(mut self, name: &str, value: &str) -> Answer {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// The head that answers this request.
    pub fn head(&self, request: &Request) -> String {
        let length = match &self.body {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File { range, .. } => range.end - range.start,
        };
        let reason = match self.status {
            200 => "OK",
            206 => "Partial Content",
            405 => "Method Not Allowed",
            416 => "Range Not Satisfiable",
            _ => "Not Found",
        };
        let mut head = format!("HTTP/1.1 {} {reason}\r\n{}", self.status, self.headers);
        head.push_str(&format!("Content-Length: {length}\r\n"));
        if request.closes {
            head.push_str("Connection: close\r\n");
        }
        head + "Docker-Distribution-Api-Version: registry/2.0\r\n\r\n"
    }
}
