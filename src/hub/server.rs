//! A hub for tests, on this machine: it speaks as much of the interface as the client uses, and can misbehave.

use super::Settings;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What one repository holds and how it answers.
#[derive(Default, Clone)]
pub struct Held {
    pub files: BTreeMap<String, Vec<u8>>,
    /// Those stored as large files.
    pub large: Vec<String>,
    pub gated: bool,
    /// Only who sends this token gets in.
    pub token: Option<String>,
    /// The next answers with this file end after so many bytes.
    pub cuts: HashMap<String, Vec<usize>>,
    /// Contents that are sent in place of the true ones.
    pub lies: HashMap<String, Vec<u8>>,
    pub card: Value,
}

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A server that lives as long as this.
pub struct Hub {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct State {
    repos: HashMap<String, Held>,
    requests: Vec<String>,
}

impl Hub {
    /// `repos` by their path in the interface: `models/OWNER/NAME`, `datasets/OWNER/NAME`.
    pub fn start(repos: impl IntoIterator<Item = (&'static str, Held)>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            repos: repos.into_iter().map(|(k, v)| (k.to_string(), v)).collect(),
            requests: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { endpoint, state, _runtime: runtime }
    }

    /// Settings that lead here, with a cache in `dir`.
    pub fn settings(&self, dir: &Path) -> Settings {
        let (endpoint, home) = (self.endpoint.clone(), dir.to_path_buf());
        Settings::of(&move |key| match key {
            "HF_ENDPOINT" => Some(endpoint.clone().into()),
            "HF_HOME" => Some(home.clone().into()),
            _ => None,
        })
    }

    /// The requests so far: `GET PATH [bytes=N-]`.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Change a repository.
    pub fn with(&self, repo: &str, change: impl FnOnce(&mut Held)) {
        change(self.state.lock().unwrap().repos.get_mut(repo).unwrap());
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut line, mut headers) = (String::new(), HashMap::new());
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).await.ok()?;
            match header.trim().split_once(": ") {
                Some((k, v)) => headers.insert(k.to_ascii_lowercase(), v.to_string()),
                None => break,
            };
        }
        let path = line.split_whitespace().nth(1)?.to_string();
        let (answer, whole) = answer(&path, &headers, &mut state.lock().unwrap());
        stream.write_all(&answer).await.ok()?;
        stream.flush().await.ok()?;
        if !whole {
            return None;
        }
    }
}

/// The bytes of an answer, and whether they are all of it.
fn answer(path: &str, headers: &HashMap<String, String>, state: &mut State) -> (Vec<u8>, bool) {
    let range = headers.get("range");
    state.requests.push(format!("GET {path}{}", range.map(|r| format!(" {r}")).unwrap_or_default()));
    let plain = path.split('?').next().unwrap().trim_start_matches('/');
    let (repo, rest) = match plain.strip_prefix("api/") {
        Some(api) => match api.split_once("/revision/") {
            Some((repo, revision)) => (repo.to_string(), format!("?{revision}")),
            None => return (reply(404, &[], b""), true),
        },
        None => match plain.split_once("/resolve/") {
            Some((repo, rest)) if repo.starts_with("datasets/") => (repo.to_string(), rest.to_string()),
            Some((repo, rest)) => (format!("models/{repo}"), rest.to_string()),
            None => return (reply(404, &[], b""), true),
        },
    };
    let Some(held) = state.repos.get_mut(&repo) else {
        return (reply(401, &[("x-error-code", "RepoNotFound")], b""), true);
    };
    let sent = headers.get("authorization").and_then(|a| a.strip_prefix("Bearer "));
    let known = held.token.is_none() || held.token.as_deref() == sent;
    if let Some(revision) = rest.strip_prefix('?') {
        if revision != "main" && revision != COMMIT {
            return (reply(404, &[("x-error-code", "RevisionNotFound")], b""), true);
        }
        if !known && !held.gated {
            return (reply(401, &[("x-error-code", "RepoNotFound")], b""), true);
        }
        return (reply(200, &[], listing(held).to_string().as_bytes()), true);
    }
    if !known {
        let status = if sent.is_some() { 403 } else { 401 };
        return (reply(status, &[("x-error-code", if held.gated { "GatedRepo" } else { "RepoNotFound" })], b""), true);
    }
    let file = rest.split_once('/').unwrap().1;
    let Some(contents) = held.lies.get(file).or_else(|| held.files.get(file)) else {
        return (reply(404, &[("x-error-code", "EntryNotFound")], b""), true);
    };
    let from = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let (status, body) = match from {
        Some(n) if n >= contents.len() => (416, &[][..]),
        Some(n) => (206, &contents[n..]),
        None => (200, &contents[..]),
    };
    let mut bytes = reply(status, &[], body);
    let cut = held.cuts.get_mut(file).filter(|c| !c.is_empty()).map(|c| c.remove(0));
    if let Some(cut) = cut.filter(|&c| c < body.len()) {
        bytes.truncate(bytes.len() - body.len() + cut);
        return (bytes, false);
    }
    (bytes, true)
}

fn listing(held: &Held) -> Value {
    let hex = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let siblings: Vec<Value> = held
        .files
        .iter()
        .map(|(name, bytes)| {
            let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
            let id = hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &blob).as_ref());
            let mut s = json!({"rfilename": name, "size": bytes.len(), "blobId": id});
            if held.large.contains(name) {
                s["lfs"] =
                    json!({"sha256": hex(digest(&SHA256, bytes).as_ref()), "size": bytes.len(), "pointerSize": 134});
            }
            s
        })
        .collect();
    json!({"sha": COMMIT, "gated": held.gated, "siblings": siblings, "cardData": held.card})
}

fn reply(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (k, v) in headers {
        out.push_str(&format!("{k}: {v}\r\n"));
    }
    out.push_str("\r\n");
    [out.as_bytes(), body].concat()
}
