//! The connections: requests in, answers out, whole or as server-sent events.

use super::api::{self, Request, Usage, Wording, Wrong};
use super::model::{self, Heard, Job};
use crate::run::artifact::Artifact;
use crate::train::event::SampleSettings;
use crate::{Error, Result};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A request's body is not read beyond this.
const LARGEST: usize = 8 << 20;

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Answered = std::result::Result<Response<Body>, Wrong>;

/// A model that is being served.
pub struct Served {
    pub address: SocketAddr,
    listener: TcpListener,
    model: Arc<Model>,
}

struct Model {
    name: String,
    created: u64,
    usual: SampleSettings,
    jobs: Sender<Job>,
    /// Of the next answer.
    number: AtomicU64,
}

/// Reads the model and takes the address. `name` is what clients call it.
///
/// # Errors
/// When the model cannot be read, or the address is taken.
pub async fn serve(artifact: &Artifact, name: &str, address: SocketAddr) -> Result<Served> {
    let listener = TcpListener::bind(address).await.map_err(|e| {
        Error::new(format!("cannot listen on {address}: {e}")).next("take another: --port 0 takes a free one")
    })?;
    let read = artifact.clone();
    let jobs =
        tokio::task::spawn_blocking(move || model::start(&read)).await.map_err(|e| Error::new(e.to_string()))??;
    let created = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let model = Model { name: name.into(), created, usual: model::usual(artifact), jobs, number: AtomicU64::new(0) };
    Ok(Served { address: listener.local_addr()?, listener, model: Arc::new(model) })
}

impl Served {
    /// Answers until the process ends. `tell` hears a line a request.
    pub async fn run(self, tell: impl Fn(&str) + Send + Sync + 'static) -> Result<()> {
        let tell = Arc::new(tell);
        loop {
            // One connection that cannot be taken ends nothing; too many open files pass.
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let (model, tell) = (Arc::clone(&self.model), Arc::clone(&tell));
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let (model, tell) = (Arc::clone(&model), Arc::clone(&tell));
                    async move {
                        let asked = format!("{} {}", request.method(), request.uri().path());
                        let response = route(&model, request).await;
                        tell(&format!("{asked} {}", response.status().as_u16()));
                        Ok::<_, Infallible>(response)
                    }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }
}

async fn route(model: &Arc<Model>, request: hyper::Request<Incoming>) -> Response<Body> {
    let answered = match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/models") => {
            let one = json!({"id": model.name, "object": "model", "created": model.created, "owned_by": "finetop"});
            Ok(whole(StatusCode::OK, &json!({"object": "list", "data": [one]})))
        }
        (&Method::POST, "/v1/chat/completions") => complete(model, request, true).await,
        (&Method::POST, "/v1/completions") => complete(model, request, false).await,
        (&Method::GET, "/" | "/health") => Ok(whole(StatusCode::OK, &json!({"status": "ok"}))),
        (_, "/v1/models" | "/v1/chat/completions" | "/v1/completions") => {
            Err(Wrong { status: 405, message: "this method is not offered here".into() })
        }
        (_, path) => Err(Wrong {
            status: 404,
            message: format!("{path} is not offered here; /v1/chat/completions, /v1/completions and /v1/models are"),
        }),
    };
    answered.unwrap_or_else(|wrong| {
        whole(StatusCode::from_u16(wrong.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &wrong.body())
    })
}

async fn complete(model: &Arc<Model>, request: hyper::Request<Incoming>, chat: bool) -> Answered {
    // A page in a browser must not reach a model on loopback: such requests come as plain text, or with an origin.
    if request.headers().contains_key(hyper::header::ORIGIN) {
        return Err(Wrong { status: 403, message: "requests of web pages are not taken".into() });
    }
    let body = Limited::new(request.into_body(), LARGEST).collect().await;
    let bytes = body.map_err(|e| Wrong::bad(format!("the body cannot be read: {e}")))?.to_bytes();
    let asked = api::read(&bytes, chat, &model.usual)?;
    let number = model.number.fetch_add(1, Ordering::Relaxed);
    let wording = Wording {
        id: format!("{}-{:x}-{number}", if chat { "chatcmpl" } else { "cmpl" }, model.created),
        model: model.name.clone(),
        created: model.created,
        chat,
    };
    let (to, heard) = unbounded_channel();
    let Request { stream, usage, .. } = asked;
    let gone = |_| Wrong { status: 500, message: "the model's thread has ended".into() };
    model.jobs.send(Job { request: asked, to }).map_err(gone)?;
    match stream {
        true => Ok(streamed(wording, heard, usage)),
        false => gathered(&wording, heard).await,
    }
}

async fn gathered(wording: &Wording, mut heard: UnboundedReceiver<Heard>) -> Answered {
    while let Some(word) = heard.recv().await {
        match word {
            Heard::Piece(_) => {}
            Heard::End { text, stop_reason, usage } => {
                return Ok(whole(StatusCode::OK, &wording.whole(&text, api::finish(stop_reason), usage)));
            }
            // What the model cannot answer is what it was asked: a prompt too long, a chat that its template refuses.
            Heard::Failed(why) => return Err(Wrong::bad(why)),
        }
    }
    Err(Wrong { status: 500, message: "the answer broke off".into() })
}

fn streamed(wording: Wording, heard: UnboundedReceiver<Heard>, with_usage: bool) -> Response<Body> {
    let first: Vec<Bytes> = wording.first().iter().map(event).collect();
    let state = (wording, heard, std::collections::VecDeque::from(first), false);
    let stream = futures_util::stream::unfold(state, move |(wording, mut heard, mut ready, mut over)| async move {
        loop {
            if let Some(bytes) = ready.pop_front() {
                return Some((Ok::<_, Infallible>(Frame::data(bytes)), (wording, heard, ready, over)));
            }
            if over {
                return None;
            }
            match heard.recv().await {
                Some(Heard::Piece(text)) => ready.push_back(event(&wording.piece(&text))),
                Some(Heard::End { stop_reason, usage, .. }) => {
                    ready.extend(ending(&wording, stop_reason, usage, with_usage))
                }
                Some(Heard::Failed(why)) => ready.extend([event(&Wrong::bad(why).body()), done()]),
                None => over = true,
            }
        }
    });
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-cache"));
    response
}

fn ending(wording: &Wording, stop_reason: &str, usage: Usage, with_usage: bool) -> Vec<Bytes> {
    let mut out = vec![event(&wording.last(api::finish(stop_reason)))];
    if with_usage {
        out.push(event(&wording.usage(usage)));
    }
    out.push(done());
    out
}

fn event(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

fn done() -> Bytes {
    Bytes::from_static(b"data: [DONE]\n\n")
}

fn whole(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}
