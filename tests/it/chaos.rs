//! Upstreams whose answers fail at random, one of six, under a crowd of clients: no client gets a
//! wrong byte or hangs, nearly all pulls succeed, upstream sends little more than what was wanted,
//! and nothing is left over.
//!
//! The seed is printed first. `LARDER_CHAOS_SEED` repeats the faults of another run, in as far as the
//! same things are asked for as often; `LARDER_CHAOS_SECONDS` sets for how long pulls begin.

mod engine;
mod puller;
mod tally;
mod upstreams;
mod world;

use std::{
    env,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{task::JoinSet, time::sleep};

use self::{
    engine::ENGINES,
    puller::{Puller, Temper},
    tally::Tally,
    upstreams::Upstreams,
    world::World,
};
use crate::support::{Random, TestMirror, binary::Daemon, mirror::metric, wait::until};

const IMAGES: usize = 200;
const CLIENTS: usize = 50;

/// How long a client does something else between two pulls, at most.
const THINKING: Duration = Duration::from_millis(1500);

/// The part of all pulls that succeeds, at the least.
const SUCCESS: f64 = 0.99;

/// How often upstream sends what was wanted, at most.
const OVERHEAD: f64 = 1.2;

/// The most memory the daemon ever has, in bytes.
const MEMORY: u64 = 150 * 1024 * 1024;

/// How long it takes to stop, at most: less than `drain_timeout`, for there is nothing to wait for.
const STOP: Duration = Duration::from_secs(10);

/// Everything of one run.
struct Storm {
    seed: u64,
    time: Duration,
    started: Instant,
    world: Arc<World>,
    upstreams: Upstreams,
    daemon: Daemon,
    tally: Arc<Tally>,
}

/// What the daemon holds.
#[derive(Clone, Copy, Debug)]
struct Footprint {
    files: usize,
    threads: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_stays_upstream() {
    let seed = variable("LARDER_CHAOS_SEED").unwrap_or_else(random_seed);
    let seconds = variable("LARDER_CHAOS_SECONDS").unwrap_or(60);
    eprintln!("LARDER_CHAOS_SEED={seed} LARDER_CHAOS_SECONDS={seconds}");
    let mut storm = Storm::prepare(seed, Duration::from_secs(seconds)).await;
    let at_first = storm.footprint();
    storm.rage().await;
    storm.judge().await;
    storm.everything_is_had_in_the_calm().await;
    storm.nothing_is_left(at_first).await;
}

impl Storm {
    /// Everything in good health.
    async fn prepare(seed: u64, time: Duration) -> Storm {
        let world = Arc::new(World::new(seed, IMAGES));
        let upstreams = Upstreams::start(&world).await;
        let mirror = upstreams.configure(TestMirror::builder());
        // As short as a minute needs them.
        let mirror = mirror.set("download.idle_timeout", "1s").set("cache.negative_ttl", "1s");
        let daemon = Daemon::start(mirror).await;
        let tally = Arc::default();
        Storm { seed, time, started: Instant::now(), world, upstreams, daemon, tally }
    }

    /// Clients pull while the upstreams are wild.
    async fn rage(&mut self) {
        self.upstreams.go_wild(self.seed);
        self.started = Instant::now();
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let client = self.puller(number, Temper::Restless, &self.tally);
            clients.spawn(pull_until(client, self.started, self.time));
        }
        tokio::select! {
            _ = clients.join_all() => {}
            never = self.meddle() => never,
        }
        eprintln!("{:?}: {:?}", self.started.elapsed(), self.footprint());
    }

    /// Moves tags and lets tokens end; sees that the daemon is ready all the time.
    async fn meddle(&self) -> ! {
        let mut random = Random::new(self.seed);
        loop {
            sleep(Duration::from_secs(1)).await;
            let passed = passed(self.started, self.time);
            self.upstreams.meddle(&self.world, &mut random, passed);
            assert_eq!(self.daemon.admin().get("/readyz").await.status, 200);
        }
    }

    /// What clients and upstream saw is within its bounds. That no byte was wrong and nothing hung,
    /// the clients have seen to.
    async fn judge(&self) {
        let counts = self.tally.counts();
        let (sent, wanted) =
            (self.upstreams.body_bytes() as f64, self.tally.content_bytes() as f64);
        let (overhead, success) = (sent / wanted, counts.success());
        let (requests, troubles) = (self.upstreams.requests(), self.upstreams.troubles());
        let memory = self.daemon.peak_memory();
        eprintln!(
            "upstream: {requests} requests, {troubles:?}, {sent} bytes, {overhead:.3} of what was wanted"
        );
        eprintln!("{counts:#?}");
        for metric in ["larder_download_resumes_total", "larder_download_failures_total"] {
            eprintln!("{metric} {}", self.metric(metric).await);
        }
        eprintln!("{success:.4} of {} pulls succeeded, {memory} bytes of memory", counts.pulls());
        assert!(success >= SUCCESS, "{success} of all pulls succeeded");
        assert!(overhead <= OVERHEAD, "upstream sent {overhead} of what was wanted");
        assert!(memory <= MEMORY, "{memory} bytes of memory");
    }

    /// When upstream is well again, each image can be pulled, whatever came before.
    async fn everything_is_had_in_the_calm(&self) {
        self.upstreams.behave();
        let tally = Arc::default();
        let mut client = self.puller(0, Temper::Steady, &tally);
        for tagged in self.world.all() {
            client.pull(&tagged).await;
        }
        let counts = tally.counts();
        eprintln!("{:?}: in the calm, by tries: {:?}", self.started.elapsed(), counts.succeeded);
        assert_eq!(counts.failed, [""; 0]);
    }

    /// The daemon has ended all that it began, keeps no connection, and stops at once.
    async fn nothing_is_left(&mut self, at_first: Footprint) {
        for gauge in ["larder_downloads_in_flight", "larder_download_followers"] {
            until(gauge, async || self.metric(gauge).await == 0.0).await;
        }
        let partial = self.daemon.data_dir().join("downloads").read_dir().unwrap();
        assert_eq!(partial.count(), 0, "downloads are left");
        self.upstreams.go_down().await;
        until("all files to be closed", async || self.footprint().files <= at_first.files).await;
        until("all threads to end", async || self.footprint().threads <= at_first.threads).await;
        eprintln!("{:?}: {:?} of {at_first:?}", self.started.elapsed(), self.footprint());
        let told = Instant::now();
        self.daemon.signal("TERM");
        assert!(self.daemon.ended().await.success());
        assert!(told.elapsed() < STOP, "stopped after {:?}", told.elapsed());
    }

    fn puller(&self, number: usize, temper: Temper, tally: &Arc<Tally>) -> Puller {
        Puller {
            engine: &ENGINES[number % ENGINES.len()],
            temper,
            client: self.daemon.client(),
            world: self.world.clone(),
            tally: tally.clone(),
            random: Random::new(self.seed.wrapping_add(1000 + number as u64)),
        }
    }

    async fn metric(&self, selector: &str) -> f64 {
        metric(&self.daemon.admin(), selector).await
    }

    fn footprint(&self) -> Footprint {
        Footprint { files: self.daemon.open_files(), threads: self.daemon.threads() }
    }
}

async fn pull_until(mut client: Puller, started: Instant, time: Duration) {
    loop {
        sleep(THINKING.mul_f64(client.random.below(1000) as f64 / 1000.0)).await;
        if started.elapsed() > time {
            return;
        }
        let tagged = client.world.clone().pick(&mut client.random, passed(started, time));
        client.pull(&tagged).await;
    }
}

/// The part of the whole time that has passed.
fn passed(started: Instant, time: Duration) -> f64 {
    started.elapsed().as_secs_f64() / time.as_secs_f64()
}

fn variable(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap())
}

fn random_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
