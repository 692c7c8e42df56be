//! The upstreams: one with tokens that redirects its blobs, one with a second endpoint.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::world::World;
use crate::support::{Auth, FakeRegistry, Mode, Random, Trouble, Upstream, mirror};

const USER: &str = "robot";
const PASSWORD: &str = "secret";

/// All that Larder pulls from.
pub struct Upstreams {
    /// docker.io: a token for everybody, and blobs elsewhere.
    hub: FakeRegistry,
    /// The first endpoint of registry.corp: tokens for a password.
    corp: FakeRegistry,
    /// The second, open to all.
    backup: FakeRegistry,
    /// Where blobs of docker.io are, and all else for whom a redirect leads here.
    storage: FakeRegistry,
}

impl Upstreams {
    /// Upstreams in good health that hold all of `world`.
    pub async fn start(world: &World) -> Upstreams {
        let hub = FakeRegistry::builder().auth(Auth::AnonymousToken).start().await;
        let corp = FakeRegistry::builder().auth(Auth::PasswordToken(USER, PASSWORD)).start().await;
        let (backup, storage) = (FakeRegistry::start().await, FakeRegistry::start().await);
        world.put_into(&hub, |repository| repository.registry == "docker.io");
        world.put_into(&corp, |repository| repository.registry == "registry.corp");
        world.put_into(&backup, |repository| repository.registry == "registry.corp");
        world.put_into(&storage, |_| true);
        hub.redirect_blobs_to(&storage);
        Upstreams { hub, corp, backup, storage }
    }

    /// Adds them to the configuration of a mirror.
    pub fn configure(&self, mirror: mirror::Builder) -> mirror::Builder {
        let endpoints = vec![self.corp.url(), self.backup.url()];
        let corp = Upstream::named("registry.corp", &self.corp).set("endpoints", endpoints);
        let corp = corp.credentials(USER, PASSWORD).set("tag_ttl", "20s");
        mirror.upstream(Upstream::docker_io(&self.hub).set("tag_ttl", "20s")).upstream(corp)
    }

    /// From now on, one answer of six fails.
    pub fn go_wild(&self, seed: u64) {
        for (number, fake) in self.all().into_iter().enumerate() {
            fake.go_wild(seed.wrapping_add(number as u64), &self.storage);
        }
    }

    /// No answer fails any more.
    pub fn behave(&self) {
        self.all().into_iter().for_each(FakeRegistry::behave);
    }

    /// Moves a tag; lets tokens end at times.
    pub fn meddle(&self, world: &World, random: &mut Random, passed: f64) {
        world.move_latest(random, passed, &self.all());
        if random.below(5) == 0 {
            self.hub.expire_tokens();
            self.corp.expire_tokens();
        }
    }

    /// Ends all connections, and refuses new ones.
    pub async fn go_down(&self) {
        join_all(self.all().into_iter().map(|fake| fake.set_mode(Mode::Down))).await;
    }

    /// Bytes of bodies sent so far.
    pub fn body_bytes(&self) -> u64 {
        self.all().into_iter().map(FakeRegistry::body_bytes).sum()
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.all().into_iter().map(|fake| fake.requests().len()).sum()
    }

    /// How many answers failed in which way since they went wild.
    pub fn troubles(&self) -> BTreeMap<Trouble, usize> {
        let mut sum = BTreeMap::new();
        for (trouble, times) in self.all().into_iter().flat_map(FakeRegistry::troubles) {
            *sum.entry(trouble).or_default() += times;
        }
        sum
    }

    fn all(&self) -> [&FakeRegistry; 4] {
        [&self.hub, &self.corp, &self.backup, &self.storage]
    }
}
