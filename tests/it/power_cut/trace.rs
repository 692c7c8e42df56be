//! What a process did to the files below a directory, as strace(1) saw it.
//!
//! Of strace's options `-y` gives the path of each descriptor, and `-xx` every byte in hexadecimal.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// The calls by which names and contents change or become durable.
pub const CALLS: &str = "trace=openat,write,writev,pwrite64,pwritev,ftruncate,fallocate,lseek,\
    rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,fsync,fdatasync";

/// One change. Paths are relative to the directory.
#[derive(Debug)]
pub enum Operation {
    MakeDirectory(PathBuf),
    /// Opened for writing where there may have been no file.
    Create {
        path: PathBuf,
        truncate: bool,
    },
    Write {
        path: PathBuf,
        offset: usize,
        bytes: Vec<u8>,
    },
    SetLength {
        path: PathBuf,
        length: usize,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove(PathBuf),
    /// What was done before this is durable once the sync of that number has ended.
    SyncBegins {
        path: PathBuf,
        number: usize,
    },
    SyncEnds {
        number: usize,
    },
}

/// Reads the traces of processes that ran one after the other. Operations come in the order in which
/// they ended.
pub fn read(traces: &[PathBuf], directory: &Path) -> Vec<Operation> {
    let mut reader = Reader { directory: directory.to_owned(), ..Reader::default() };
    for trace in traces {
        reader.unfinished.clear();
        fs::read_to_string(trace).unwrap().lines().for_each(|line| reader.line(line));
    }
    reader.operations
}

#[derive(Default)]
struct Reader {
    directory: PathBuf,
    operations: Vec<Operation>,
    /// What each thread has begun and not ended, and the number of its sync.
    unfinished: HashMap<String, (String, Option<usize>)>,
    /// Where each descriptor stands.
    positions: HashMap<String, usize>,
    syncs: usize,
}

impl Reader {
    fn line(&mut self, line: &str) {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
            let sync = self.begin_sync(begun);
            self.unfinished.insert(thread.to_owned(), (begun.to_owned(), sync));
        } else if let Some(resumed) = call.strip_prefix("<... ") {
            let (_, rest) = resumed.split_once(" resumed>").unwrap();
            // A thread that was already in a call when strace came to it has begun nothing.
            if let Some((begun, sync)) = self.unfinished.remove(thread) {
                self.ended(&format!("{begun}{rest}"), sync);
            }
        } else if call.contains('(') {
            let sync = self.begin_sync(call);
            self.ended(call, sync);
        }
    }

    fn begin_sync(&mut self, call: &str) -> Option<usize> {
        if !call.starts_with("fsync(") && !call.starts_with("fdatasync(") {
            return None;
        }
        let path = self.own(&decoration(call)?)?;
        self.syncs += 1;
        self.operations.push(Operation::SyncBegins { path, number: self.syncs });
        Some(self.syncs)
    }

    /// Takes one whole line `name(arguments) = result`.
    fn ended(&mut self, call: &str, sync: Option<usize>) {
        let (call, result) = call.rsplit_once(" = ").unwrap();
        let digits = result.split(|c: char| !c.is_ascii_digit()).next().unwrap();
        let Ok(result) = digits.parse::<usize>() else {
            return;
        };
        let (name, arguments) = call.split_once('(').unwrap();
        let arguments = arguments.trim_end().trim_end_matches(')');
        if let Some(operation) = self.operation(name, arguments, result, sync) {
            self.operations.push(operation);
        }
    }

    fn operation(
        &mut self,
        name: &str,
        arguments: &str,
        result: usize,
        sync: Option<usize>,
    ) -> Option<Operation> {
        if name == "openat" {
            self.positions.insert(result.to_string(), 0);
        }
        let strings = strings(arguments);
        let named = |place: usize| {
            let path = String::from_utf8(strings.get(place)?.clone()).unwrap();
            self.own(Path::new(&path))
        };
        match name {
            "openat" => {
                let path = named(0).filter(|_| arguments.contains("O_CREAT"))?;
                Some(Operation::Create { path, truncate: arguments.contains("O_TRUNC") })
            }
            "mkdir" | "mkdirat" => Some(Operation::MakeDirectory(named(0)?)),
            "rename" | "renameat" | "renameat2" => match (named(0), named(1)) {
                (Some(from), Some(to)) => Some(Operation::Rename { from, to }),
                _ => None,
            },
            "unlink" | "unlinkat" | "rmdir" => Some(Operation::Remove(named(0)?)),
            "link" | "linkat" => named(1).map(|path| panic!("a link at {}", path.display())),
            "fsync" | "fdatasync" => Some(Operation::SyncEnds { number: sync? }),
            _ => self.on_descriptor(name, arguments, result, strings.concat()),
        }
    }

    fn on_descriptor(
        &mut self,
        name: &str,
        arguments: &str,
        result: usize,
        mut bytes: Vec<u8>,
    ) -> Option<Operation> {
        let path = self.own(&decoration(arguments)?)?;
        let descriptor = arguments.split('<').next()?;
        let last = || arguments.rsplit(", ").next().unwrap().parse::<usize>().unwrap();
        bytes.truncate(result);
        match name {
            "lseek" => {
                self.positions.insert(descriptor.to_owned(), result);
                None
            }
            "write" | "writev" => {
                let position = self.positions.entry(descriptor.to_owned()).or_default();
                let offset = *position;
                *position += result;
                Some(Operation::Write { path, offset, bytes })
            }
            "pwrite64" | "pwritev" => Some(Operation::Write { path, offset: last(), bytes }),
            "ftruncate" => Some(Operation::SetLength { path, length: last() }),
            "fallocate" if arguments.contains("FALLOC_FL_KEEP_SIZE") => None,
            _ => panic!("{name} on {}", path.display()),
        }
    }

    /// A socket is no file, and its making is none of the calls that are traced.
    fn own(&self, path: &Path) -> Option<PathBuf> {
        let path = path.strip_prefix(&self.directory).ok()?;
        (path != "admin.sock").then(|| path.to_owned())
    }
}

/// The path of the first descriptor, unless the file has no name any more.
fn decoration(arguments: &str) -> Option<PathBuf> {
    let (_, path) = arguments.split_once("<\\x")?;
    let (path, after) = path.split_once('>')?;
    let path = String::from_utf8(decoded(&format!("\\x{path}"))).unwrap();
    (!after.starts_with("(deleted)")).then(|| path.into())
}

/// Everything between quotation marks, decoded.
fn strings(arguments: &str) -> Vec<Vec<u8>> {
    arguments.split('"').skip(1).step_by(2).map(decoded).collect()
}

fn decoded(text: &str) -> Vec<u8> {
    let pairs = text.split("\\x").skip(1);
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
