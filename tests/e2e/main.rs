//! Larder between real registries and real engines.
//!
//! Every test sets up a [`lab::Lab`] of its own: two `docker-registry` upstreams behind TLS and
//! token auth, the real `larder` binary, and a network namespace in which the clients live. From
//! in there nothing but Larder can be reached, so an image that arrives came through it. The clients
//! are set up by what `larder configure` writes, in an `/etc` of their own.
//!
//! Needs root and the programs that `tests/run` installs:
//!
//! ```text
//! cargo test --test e2e -- --show-output                 # all, with what upstream was asked
//! cargo test --test e2e -- --show-output docker::two     # one
//! ```
//!
//! Nothing outlives a test but empty cgroups: processes die with the thread that started them,
//! mounts and network interfaces with their namespaces, files with the temporary directory, what an
//! engine writes below `/etc` among them.
//!
//! Each module is `cfg(test)` so that the lints treat its helpers as the tests they are.

#[cfg(test)]
mod process;

#[cfg(test)]
mod access_log;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod image;
#[cfg(test)]
mod token_server;
#[cfg(test)]
mod upstream;

#[cfg(test)]
mod engine;
#[cfg(test)]
mod impaired;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod larder;
#[cfg(test)]
mod network;
#[cfg(test)]
mod phases;
#[cfg(test)]
mod small_disk;

#[cfg(test)]
mod commands;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod disk_index;
#[cfg(test)]
mod permissions;
#[cfg(test)]
mod quota;

#[cfg(test)]
mod containerd;
#[cfg(test)]
mod cri;
#[cfg(test)]
mod docker;
#[cfg(test)]
mod layout;
#[cfg(test)]
mod oras;
#[cfg(test)]
mod podman;
#[cfg(test)]
mod skopeo;
