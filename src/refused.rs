//! Registries that clients asked for and that are not configured: the last few, for the operator.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use crate::clock::Clock;

/// How many names are remembered.
const CAPACITY: usize = 32;

/// How much of a name is remembered, in characters.
const LENGTH: usize = 128;

/// The names refused last; clones share them.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The newest last.
    names: Arc<Mutex<Vec<RefusedName>>>,
    clock: Clock,
}

/// What a client called a registry.
#[derive(Clone, Debug)]
pub struct RefusedName {
    /// As the client wrote it, cut where it is very long.
    pub name: String,
    /// How often it was asked for since it was remembered.
    pub count: u64,
    /// When it was last asked for.
    pub last: SystemTime,
}

impl Refused {
    /// Nothing was refused yet.
    pub fn new(clock: Clock) -> Refused {
        Refused { names: Arc::default(), clock }
    }

    /// A client asked for `name`.
    pub fn note(&self, name: &str) {
        let name: String = name.chars().take(LENGTH).collect();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.iter().position(|refused| refused.name == name);
        let count = known.map_or(0, |place| names.remove(place).count);
        if names.len() >= CAPACITY {
            names.remove(0);
        }
        let count = count.saturating_add(1);
        names.push(RefusedName { name, count, last: self.clock.wall() });
    }

    /// The names refused last, newest first.
    pub fn newest(&self) -> Vec<RefusedName> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().rev().cloned().collect()
    }
}
