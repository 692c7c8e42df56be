//! How the engines differ where it matters when something fails, as far as that was observed. Only
//! their pauses are shorter here.

use std::time::Duration;

use larder::oci::Digest;

use super::world::Repository;

/// An engine that pulls images.
#[derive(Debug)]
pub struct Engine {
    /// Whether it asks for `/v2/` first.
    pub pings: bool,
    /// Whether it asks for a tag by HEAD, and then for the manifest by digest.
    pub looks_first: bool,
    /// How often it sends a request that is answered with 429.
    pub limited_tries: u32,
    /// Whether it waits meanwhile as long as it is told.
    pub obeys_retry_after: bool,
    /// What it does about a blob that is cut.
    pub resume: Resume,
    route: Route,
}

/// What an engine does about a blob that is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Asks for the rest at once; skips what it has when it gets the whole.
    AtOnce,
    /// Asks for the rest after a pause; begins anew when it gets the whole.
    Later,
    /// Gives up the image.
    Never,
}

/// How a request says which registry it means.
#[derive(Clone, Copy, Debug)]
enum Route {
    /// By `?ns=`.
    Namespace,
    /// By a path that begins with the registry's name, but for docker.io.
    Path,
}

/// One of each kind.
pub const ENGINES: [Engine; 3] = [
    // Docker, to which another registry is one that is named by hand.
    Engine {
        pings: true,
        looks_first: true,
        limited_tries: 1,
        obeys_retry_after: false,
        resume: Resume::Later,
        route: Route::Path,
    },
    // containerd.
    Engine {
        pings: false,
        looks_first: true,
        limited_tries: 6,
        obeys_retry_after: false,
        resume: Resume::AtOnce,
        route: Route::Namespace,
    },
    // Podman 4.
    Engine {
        pings: true,
        looks_first: false,
        limited_tries: 5,
        obeys_retry_after: true,
        resume: Resume::Never,
        route: Route::Path,
    },
];

impl Engine {
    /// The path and query of a manifest.
    pub fn manifest_path(&self, repository: Repository, reference: &str) -> String {
        self.path(repository, &format!("manifests/{reference}"))
    }

    /// The path and query of a blob.
    pub fn blob_path(&self, repository: Repository, digest: &Digest) -> String {
        self.path(repository, &format!("blobs/{digest}"))
    }

    fn path(&self, repository: Repository, content: &str) -> String {
        let Repository { registry, name } = repository;
        match self.route {
            Route::Namespace => format!("/v2/{name}/{content}?ns={registry}"),
            Route::Path if registry == "docker.io" => format!("/v2/{name}/{content}"),
            Route::Path => format!("/v2/{registry}/{name}/{content}"),
        }
    }
}

impl Resume {
    /// How often in a row, without a byte in between.
    pub fn tries(self) -> u32 {
        match self {
            Resume::AtOnce => 3,
            Resume::Later => 4,
            Resume::Never => 0,
        }
    }

    /// How long before each.
    pub fn pause(self) -> Duration {
        match self {
            Resume::AtOnce | Resume::Never => Duration::ZERO,
            Resume::Later => Duration::from_millis(200),
        }
    }
}
