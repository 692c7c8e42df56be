//! The part of the Container Runtime Interface that a kubelet calls for images, spoken by curl:
//! gRPC over HTTP/2 on containerd's socket (`runtime.v1.ImageService` of Kubernetes' `cri-api`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::process::run;

/// containerd's image service.
pub struct ImageService {
    socket: PathBuf,
    /// For the messages.
    directory: PathBuf,
}

impl ImageService {
    /// The service behind `socket`.
    pub fn new(socket: &Path, directory: &Path) -> Self {
        Self { socket: socket.to_owned(), directory: directory.to_owned() }
    }

    /// Pulls an image.
    pub fn pull(&self, image: &str) {
        self.call("PullImage", image);
    }

    /// Whether the runtime has the image: the status of one that it lacks does not name it.
    pub fn has(&self, image: &str) -> bool {
        let status = self.call("ImageStatus", image);
        status.windows(image.len()).any(|bytes| bytes == image.as_bytes())
    }

    /// Removes an image and what only it needed.
    pub fn remove(&self, image: &str) {
        self.call("RemoveImage", image);
    }

    /// Calls a method whose request is `{ ImageSpec image = 1; }` and returns the answer's frame.
    fn call(&self, method: &str, image: &str) -> Vec<u8> {
        let file = |name| self.directory.join(name);
        let (request, answer, headers) = (file("request"), file("answer"), file("headers"));
        fs::write(&request, frame(&field(&field(image.as_bytes())))).unwrap();
        fs::write(&answer, "").unwrap();
        run(&format!(
            "curl --silent --show-error --http2-prior-knowledge --unix-socket {} \
             --header content-type:application/grpc --header te:trailers --data-binary @{} \
             --dump-header {} --output {} http://localhost/runtime.v1.ImageService/{method}",
            self.socket.display(),
            request.display(),
            headers.display(),
            answer.display()
        ));
        let headers = fs::read_to_string(headers).unwrap();
        assert!(headers.lines().any(|line| line == "grpc-status: 0"), "{method}: {headers}");
        fs::read(answer).unwrap()
    }
}

/// Field 1 of a protobuf message, with bytes of a length that needs one byte itself.
fn field(value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).ok().filter(|length| *length < 0x80).unwrap();
    [&[1 << 3 | 2, length], value].concat()
}

/// A gRPC message: not compressed, its length, itself.
fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}
