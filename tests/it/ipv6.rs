//! IPv6, from the client to the registry. Some containers have none, not even of their own.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};

use crate::support::{FakeRegistry, Image, TestMirror, Upstream, tls::TestCa};

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_by_ipv6() {
    let here = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if TcpListener::bind(here).is_err() {
        return;
    }
    let image = Image::random(1);
    let plain = FakeRegistry::builder().address(here).start().await;
    let tls = FakeRegistry::builder().address(here).tls(&TestCa::new()).start().await;
    for registry in [plain, tls] {
        assert!(registry.url().contains("://[::1]:"));
        registry.put_image("library/x", "latest", &image);
        let mirror = TestMirror::builder()
            .upstream(Upstream::docker_io(&registry))
            .set("listen", vec!["[::1]:0"])
            .start()
            .await;
        mirror.pull("library/x", "latest", &image).await;
    }
}
