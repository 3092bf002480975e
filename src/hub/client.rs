//! The hub's HTTP interface: what a repository holds, and the bytes of its files.
//!
//! Must not know the cache. Every refusal is said in words with what to do about it.

use super::repo::{Kind, Repo, is_commit, is_inside};
use super::settings::Settings;
use crate::{Error, Kind as Ending};
use serde_json::Value;
use std::time::Duration;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

/// A name that does not answer, or a read that brings nothing, for so long is given up (and tried again).
const PATIENCE: Duration = Duration::from_secs(30);

/// A commit's files.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    pub commit: String,
    pub files: Vec<Sibling>,
    /// Of a data set: its configurations, as its card has them (`configs`).
    pub card: Value,
}

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    pub path: String,
    /// Bytes; `None` where the hub does not say.
    pub size: Option<u64>,
    pub hash: Hash,
}

/// What a file's contents must hash to; also its name among the cache's blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hash {
    /// Of a large file.
    Sha256(String),
    /// git's: SHA-1 over `blob LENGTH\0` and the contents.
    GitBlob(String),
}

impl Hash {
    pub fn etag(&self) -> &str {
        match self {
            Self::Sha256(h) | Self::GitBlob(h) => h,
        }
    }
}

/// Why there is no answer.
pub enum Failure {
    /// The hub could not be asked.
    Unreachable(Error),
    /// It answered, and said no.
    Other(Error),
}

impl From<Failure> for Error {
    fn from(f: Failure) -> Self {
        match f {
            Failure::Unreachable(e) | Failure::Other(e) => e,
        }
    }
}

/// Connections to one hub.
pub struct Client<'a> {
    agent: Agent,
    settings: &'a Settings,
}

impl<'a> Client<'a> {
    /// # Errors
    /// Certificates that cannot be read.
    pub fn new(settings: &'a Settings) -> Result<Self, Error> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .user_agent(concat!("finetop/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &settings.certificates {
            config = config.tls_config(TlsConfig::builder().root_certs(certificates(path)?).build());
        }
        Ok(Self { agent: config.build().new_agent(), settings })
    }

    /// What a repository holds at its revision.
    pub fn info(&self, repo: &Repo) -> Result<Info, Failure> {
        let revision = repo.revision().replace('/', "%2F");
        let url =
            format!("{}/api/{}/{}/revision/{revision}?blobs=true", self.settings.endpoint, repo.kind.plural(), repo.id);
        let mut response = self.get(&url, None).map_err(|e| self.unreachable(repo, &e))?;
        if response.status().as_u16() != 200 {
            return Err(self.refused(repo, None, &response));
        }
        let read = response.body_mut().with_config().limit(256 << 20).read_to_string();
        let text = read.map_err(|e| self.unreachable(repo, &e))?;
        parse(&text).ok_or_else(|| {
            Failure::Other(
                Error::new("the hub's answer is not a list of files")
                    .at(url)
                    .next("HF_ENDPOINT must name a server that speaks the hub's interface"),
            )
        })
    }

    /// A file's bytes from `from` on. The answer's status says whether the hub began there (206) or at 0 (200).
    pub fn file(&self, repo: &Repo, commit: &str, path: &str, from: u64) -> Result<Response<Body>, Failure> {
        let prefix = match repo.kind {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
        };
        let url = format!("{}/{prefix}{}/resolve/{commit}/{}", self.settings.endpoint, repo.id, encode(path));
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let response = self.get(&url, range.as_deref()).map_err(|e| self.unreachable(repo, &e))?;
        match response.status().as_u16() {
            200 | 206 | 416 => Ok(response),
            500..=599 | 429 | 408 => {
                let status = response.status();
                Err(Failure::Unreachable(
                    Error::new(format!("the hub answers {status}"))
                        .at(format!("{repo}: {path}"))
                        .next("try again later"),
                ))
            }
            _ => Err(self.refused(repo, Some(path), &response)),
        }
    }

    fn get(&self, url: &str, range: Option<&str>) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.settings.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header("range", range);
        }
        request.call()
    }

    fn unreachable(&self, repo: &Repo, e: &ureq::Error) -> Failure {
        let host = &self.settings.endpoint;
        Failure::Unreachable(
            Error::new(format!("{host} cannot be reached: {e}"))
                .at(repo)
                .next("check the network, HTTPS_PROXY and HF_ENDPOINT; or name a folder or a file that is here"),
        )
    }

    /// The hub's refusal in words.
    fn refused(&self, repo: &Repo, file: Option<&str>, response: &Response<Body>) -> Failure {
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let (status, code) = (response.status().as_u16(), header("x-error-code"));
        let page = format!(
            "{}/{}{}",
            self.settings.endpoint,
            if repo.kind == Kind::Dataset { "datasets/" } else { "" },
            repo.id
        );
        let token = match &self.settings.token {
            None => "log in: set HF_TOKEN to a token of yours, or run `hf auth login`".to_string(),
            Some(_) => format!("the token of {} must be of an account that has it", self.settings.token_from),
        };
        let (what, next) = match (status, code) {
            (_, "RevisionNotFound") => (
                format!("the repository has no revision {}", repo.revision()),
                format!("its branches and tags are listed at {page}/tree/main"),
            ),
            (_, "EntryNotFound") => (
                format!("the repository has no file {}", file.unwrap_or_default()),
                format!("its files are listed at {page}/tree/{}", repo.revision()),
            ),
            (401 | 403, "GatedRepo") => (
                "the repository is gated: its owner lets only those in who accepted its terms".to_string(),
                format!("accept them at {page}; then {token}"),
            ),
            (401, _) | (404, "RepoNotFound") if self.settings.token.is_some() => (
                "there is no such repository on the hub, or it is private and the token may not see it".to_string(),
                format!("check the name; {token}"),
            ),
            (401 | 404, _) => (
                "there is no such repository on the hub, or it is private".to_string(),
                format!("check the name; for a private one, {token}"),
            ),
            (403, _) => (format!("the hub forbids it: {}", or(header("x-error-message"), "403")), token),
            (429, _) => (
                "the hub has had too many requests from here".to_string(),
                "wait a few minutes; with HF_TOKEN the limit is higher".to_string(),
            ),
            (500..=599, _) => (format!("the hub answers {status}"), "try again later".to_string()),
            _ => (
                format!("the hub answers {status}: {}", or(header("x-error-message"), "no reason given")),
                format!("look at {page}"),
            ),
        };
        let error = Error::new(what).kind(Ending::Failed).at(repo).next(next);
        if (500..=599).contains(&status) { Failure::Unreachable(error) } else { Failure::Other(error) }
    }
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}

/// Names and hashes are checked: they become paths.
fn parse(text: &str) -> Option<Info> {
    let value: Value = serde_json::from_str(text).ok()?;
    let commit = value.get("sha")?.as_str().filter(|s| is_commit(s))?.to_string();
    let hex = |v: Option<&Value>, digits: usize| {
        v.and_then(Value::as_str)
            .filter(|s| s.len() == digits && s.bytes().all(|b| b.is_ascii_hexdigit()))
            .map(str::to_string)
    };
    let file = |s: &Value| {
        let path = s.get("rfilename")?.as_str().filter(|p| is_inside(p))?.to_string();
        let hash = match hex(s.pointer("/lfs/sha256"), 64) {
            Some(sha256) => Hash::Sha256(sha256),
            None => Hash::GitBlob(hex(s.get("blobId"), 40)?),
        };
        let size = s.pointer("/lfs/size").or_else(|| s.get("size")).and_then(Value::as_u64);
        Some(Sibling { path, size, hash })
    };
    let files = value.get("siblings")?.as_array()?.iter().filter_map(file).collect();
    Some(Info { commit, files, card: value.get("cardData").cloned().unwrap_or_default() })
}

/// A path in a URL.
fn encode(path: &str) -> String {
    let mut out = String::new();
    for b in path.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => out.push(char::from(b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// Certificates of the user's own, for networks that look into TLS.
fn certificates(path: &std::path::Path) -> Result<RootCerts, Error> {
    let place = || path.display().to_string();
    let next = "SSL_CERT_FILE or REQUESTS_CA_BUNDLE must name a file of PEM certificates";
    let pem = std::fs::read(path).map_err(|e| Error::from(e).at(place()).next(next))?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(c)) => Some(c),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(Error::new("no certificate in it").at(place()).next(next));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}
