//! A thread, and the connections that it waits on.

use std::{
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use rustix::{
    event::{Timespec, epoll},
    fd::OwnedFd,
    io::Errno,
};
use rustls::ClientConfig;

use crate::{
    Failure,
    connection::{Connection, Scratch},
    exchange::Checks,
    tally::{Fault, Tally},
    workload::{Turns, Workload},
};

/// How long a wait may be before stalls and the end of time are looked for.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// What is the same for all threads of a run.
pub struct Rules {
    pub workload: Workload,
    pub checks: Checks,
    /// Until when requests are sent and answers taken, from the start on.
    pub duration: Option<Duration>,
    pub stall: Duration,
    pub tls: Option<Arc<ClientConfig>>,
    /// Passed by all once when they are connected, and once more to start.
    pub barrier: Barrier,
}

/// A place for a connection: when the server closes one, another takes its place.
struct Place {
    /// `None`: it is done.
    connection: Option<Connection>,
    turns: Turns,
}

/// Connections and what came of them.
pub struct Worker<'r> {
    rules: &'r Rules,
    epoll: OwnedFd,
    places: Vec<Place>,
    /// Places that are not done.
    open: usize,
    scratch: Scratch,
    tally: Tally,
}

impl<'r> Worker<'r> {
    /// Connects once for each of these orders, and runs them when all threads are ready.
    pub fn run(rules: &'r Rules, turns: Vec<Turns>) -> Result<Tally, Failure> {
        let worker = Worker::connect(rules, turns);
        rules.barrier.wait();
        rules.barrier.wait();
        let mut worker = worker?;
        worker.start();
        worker.work()?;
        Ok(worker.end())
    }

    fn connect(rules: &'r Rules, turns: Vec<Turns>) -> Result<Worker<'r>, Failure> {
        let mut worker = Worker {
            rules,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            open: turns.len(),
            places: Vec::new(),
            scratch: Scratch::default(),
            tally: Tally::default(),
        };
        for turns in turns {
            worker.places.push(Place { connection: None, turns });
            worker.open_connection(worker.places.len() - 1, 0)?;
        }
        Ok(worker)
    }

    fn open_connection(&mut self, place: usize, sent: u64) -> Result<(), Failure> {
        let rules = self.rules;
        let server = &rules.workload.server;
        let mut connection = Connection::open(server, rules.tls.as_ref(), rules.stall)?;
        connection.sent = sent;
        let data = epoll::EventData::new_u64(place as u64);
        epoll::add(&self.epoll, &connection.stream, data, epoll::EventFlags::IN)?;
        self.places[place].connection = Some(connection);
        Ok(())
    }

    fn start(&mut self) {
        let now = Instant::now();
        for place in 0..self.places.len() {
            self.ask(place, now);
        }
    }

    fn work(&mut self) -> Result<(), Failure> {
        let end = self.rules.duration.map(|duration| Instant::now() + duration);
        let mut events = Vec::with_capacity(1024);
        let mut looked = Instant::now();
        while self.open > 0 {
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, room, Some(&LOOK)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let now = Instant::now();
            if end.is_some_and(|end| now >= end) {
                break;
            }
            for event in &events {
                self.receive(event.data.u64() as usize, now);
            }
            if now.saturating_duration_since(looked) >= self.rules.stall / 10 {
                looked = now;
                self.look_for_stalls(now);
            }
        }
        Ok(())
    }

    /// Sends the next request of a place, if it has one.
    fn ask(&mut self, place: usize, now: Instant) {
        let Place { connection: slot, turns } = &mut self.places[place];
        let Some(connection) = slot else { return };
        let workload = &self.rules.workload;
        let Some(index) = workload.next(turns, connection.sent) else {
            *slot = None;
            self.open -= 1;
            return;
        };
        let request = &workload.requests[index];
        if let Err(fault) = connection.send(index, request, self.rules.checks, now) {
            self.fail(place, fault);
        }
    }

    fn receive(&mut self, place: usize, now: Instant) {
        let Some(connection) = &mut self.places[place].connection else { return };
        connection.heard = now;
        let exchange = match connection.receive(&mut self.scratch) {
            Ok(Some(exchange)) => exchange,
            Ok(None) => return,
            Err(fault) => return self.fail(place, fault),
        };
        let (finished, closes) = (Instant::now(), exchange.closes);
        let request = &self.rules.workload.requests[exchange.request];
        exchange.finish(request, self.rules.checks, finished, &mut self.tally);
        if closes {
            self.tally.reconnects += 1;
            self.replace(place);
        } else {
            self.ask(place, finished);
        }
    }

    /// Counts the request of a place as failed, and goes on with another connection.
    fn fail(&mut self, place: usize, fault: Fault) {
        self.tally.fault(fault);
        self.replace(place);
    }

    /// Opens another connection in a place and asks on it. Where that fails the place is done:
    /// asking a server that is gone would only count how fast that is.
    fn replace(&mut self, place: usize) {
        let Some(mut old) = self.places[place].connection.take() else { return };
        if let Some(exchange) = old.exchange.take() {
            self.tally.bytes += exchange.bytes;
        }
        if self.open_connection(place, old.sent).is_ok() {
            self.ask(place, Instant::now());
        } else {
            self.tally.fault(Fault::Connect);
            self.open -= 1;
        }
    }

    fn look_for_stalls(&mut self, now: Instant) {
        for place in 0..self.places.len() {
            let heard = self.places[place].connection.as_ref().map(|connection| connection.heard);
            if heard.is_some_and(|heard| now.saturating_duration_since(heard) > self.rules.stall) {
                self.fail(place, Fault::Stall);
            }
        }
    }

    /// What was seen, with what came of answers that were not awaited.
    fn end(mut self) -> Tally {
        let left =
            self.places.iter().filter_map(|place| place.connection.as_ref()?.exchange.as_ref());
        self.tally.bytes += left.map(|exchange| exchange.bytes).sum::<u64>();
        self.tally
    }
}
