//! What is asked of a daemon by hand until it is killed: scrubs and sweeps one after the other, and
//! meanwhile a removal and a change of pins.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::admin::try_over_socket;

/// Commands under way.
pub struct Commands {
    is_over: Arc<AtomicBool>,
    endless: JoinSet<()>,
    removal: JoinHandle<Vec<String>>,
    pin: JoinHandle<bool>,
}

/// What was answered, and so outlives the daemon.
pub struct Promised {
    /// Images that are not here any more.
    pub removed: Vec<String>,
    /// Whether the change of pins was done.
    pub is_pin_changed: bool,
}

/// A change of pins.
#[derive(Clone, Copy)]
pub enum Change {
    Pin,
    Unpin,
}

impl Commands {
    /// Has `doomed` removed and the pin of `pinned` changed, and scrubs and sweeps.
    pub fn begin(
        socket: &Path,
        doomed: Vec<String>,
        change: Change,
        pinned: &'static str,
    ) -> Commands {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut endless = JoinSet::new();
        endless.spawn(scrub(socket.to_owned(), is_over.clone()));
        endless.spawn(sweep(socket.to_owned(), is_over.clone()));
        let removal = tokio::spawn(remove(socket.to_owned(), doomed));
        let pin = tokio::spawn(change_pin(socket.to_owned(), change, pinned));
        Commands { is_over, endless, removal, pin }
    }

    /// Nothing is begun from here on.
    pub fn end(&self) {
        self.is_over.store(true, Relaxed);
    }

    /// What came of it, once the daemon was killed.
    pub async fn promised(self) -> Promised {
        self.endless.join_all().await;
        Promised { removed: self.removal.await.unwrap(), is_pin_changed: self.pin.await.unwrap() }
    }
}

/// Why an image would not be removed; `None` when it would.
pub async fn refusal(socket: &Path, image: &str) -> Option<String> {
    let asked = json!({ "targets": [{ "image": image }], "dry_run": true });
    let answer = ask(socket, "remove", asked).await.unwrap();
    answer["targets"][0]["error"].as_str().map(str::to_owned)
}

/// Pins an image that is here.
pub async fn pin(socket: &Path, image: &'static str) {
    assert!(change_pin(socket.to_owned(), Change::Pin, image).await);
}

async fn scrub(socket: PathBuf, is_over: Arc<AtomicBool>) {
    while !is_over.load(Relaxed) {
        let Some(found) = post(&socket, "scrub", json!({ "repair": true })).await else { return };
        assert!(!found.contains(r#""damage":"#) && !found.contains(r#""stray":"#), "{found}");
    }
}

async fn sweep(socket: PathBuf, is_over: Arc<AtomicBool>) {
    while !is_over.load(Relaxed) && post(&socket, "sweep", json!({})).await.is_some() {}
}

async fn remove(socket: PathBuf, doomed: Vec<String>) -> Vec<String> {
    let images = doomed.iter().map(|image| json!({ "image": image }));
    let untagged = json!({ "untagged": "docker.io/library/new" });
    let targets: Vec<Value> = images.chain([untagged]).collect();
    let Some(answer) = ask(&socket, "remove", json!({ "targets": targets })).await else {
        return Vec::new();
    };
    let answers = answer["targets"].as_array().unwrap();
    let done = doomed.into_iter().zip(answers).filter(|(_, answer)| answer["error"].is_null());
    done.map(|(image, _)| image).collect()
}

async fn change_pin(socket: PathBuf, change: Change, image: &'static str) -> bool {
    let question = match change {
        Change::Pin => "pin",
        Change::Unpin => "unpin",
    };
    let Some(answer) = ask(&socket, question, json!({ "images": [image] })).await else {
        return false;
    };
    assert_eq!(answer["images"][0]["error"], Value::Null, "{question}: {answer}");
    true
}

/// The answer, if it came as a whole.
async fn ask(socket: &Path, question: &str, body: Value) -> Option<Value> {
    let text = post(socket, question, body).await?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let document = body.get(body.find('{')?..=body.rfind('}')?)?;
    let document = serde_json::from_str(document).ok()?;
    assert!(head.starts_with("HTTP/1.1 200"), "{text}");
    Some(document)
}

/// Whatever came of the answer.
async fn post(socket: &Path, question: &str, body: Value) -> Option<String> {
    let first = format!("POST /api/v1/{question}");
    let request = [first.as_str(), "content-type: application/json"];
    Some(try_over_socket(socket, &request, &body.to_string()).await?.text)
}
