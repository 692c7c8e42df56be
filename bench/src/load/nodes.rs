//! Many nodes that pull many small images, each in an order of its own.
//!
//! A pull is what a container engine asks for: the manifest by its tag as HEAD, then as GET, the
//! config and the layers. Every node pulls every image, so that all but the first pull of an
//! image finds it cached.

use std::sync::atomic::AtomicU64;

use crate::{
    Failure,
    contents::{Contents, Image, MANIFEST},
    exchange::Checks,
    options::Nodes,
    report::Report,
    run,
    workload::{Method, Request, Server, Turns, Workload},
};

/// Does what `nodes` is for.
pub fn run(nodes: &Nodes) -> Result<(), Failure> {
    measure(nodes)?.print()
}

/// What these nodes saw.
pub fn measure(nodes: &Nodes) -> Result<Report, Failure> {
    let contents = Contents::read(&nodes.root)?;
    let images = &contents.many[..nodes.images.unwrap_or(usize::MAX).min(contents.many.len())];
    let headers = [vec![format!("Accept: {MANIFEST}")], nodes.run.headers.clone()].concat();
    let server = Server::new(&nodes.server, nodes.run.http2, &headers)?;
    let (mut requests, mut pulls) = (Vec::new(), Vec::new());
    for image in images {
        let first = u32::try_from(requests.len())?;
        requests.extend(pull(&server, &nodes.prefix, image));
        pulls.push(first..u32::try_from(requests.len())?);
    }
    let turns = (0..nodes.nodes as u64).map(|node| {
        let mut order = pulls.clone();
        fastrand::Rng::with_seed(nodes.seed + node).shuffle(&mut order);
        Turns::Script(order.into_iter().flatten().collect::<Vec<_>>().into_iter())
    });
    let checks = Checks { sha256: nodes.run.sha256, bytes: None };
    let workload =
        Workload { server, requests, total: u64::MAX, each: u64::MAX, started: AtomicU64::new(0) };
    let mut report = run::run(workload, turns.collect(), checks, None, &nodes.run)?;
    let pulls = nodes.nodes * pulls.len();
    report.pulls_per_second = Some(pulls as f64 / report.seconds);
    Ok(report)
}

/// What a node asks for to pull an image.
fn pull(server: &Server, prefix: &str, image: &Image) -> Vec<Request> {
    let name = match prefix {
        "" => image.name.clone(),
        prefix => format!("{prefix}/{}", image.name),
    };
    let manifest = format!("/v2/{name}/manifests/{}", image.tag);
    let mut requests =
        vec![server.request(Method::Head, &manifest), server.request(Method::Get, &manifest)];
    for blob in [&image.config].into_iter().chain(&image.layers) {
        requests.push(server.request(Method::Get, &format!("/v2/{name}/blobs/{}", blob.digest)));
    }
    requests
}
