//! A model served to a client that speaks HTTP: answers whole and in pieces, and refusals.

use finetop::run::artifact;
use finetop::serve::serve;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Serves the built-in demo model from here on.
fn served() -> SocketAddr {
    let (to, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let artifact = artifact::find("demo").unwrap();
            let served = serve(&artifact, "calls", "127.0.0.1:0".parse().unwrap()).await.unwrap();
            to.send(served.address).unwrap();
            served.run(|_| {}).await.unwrap();
        });
    });
    address.recv().unwrap()
}

/// The status, and the body as text; chunks put together.
fn ask(to: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(to).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, mut rest) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return (status, rest.to_string());
    }
    let mut whole = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    (status, whole)
}

fn chat(more: Value) -> String {
    let mut body = json!({"model": "calls", "temperature": 0, "max_tokens": 24,
        "messages": [{"role": "user", "content": "Set a timer for 12 minutes for the soup."}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

#[test]
fn a_client_is_answered_whole_and_in_pieces_and_both_are_the_same() {
    let to = served();
    let (status, models) = ask(to, "GET", "/v1/models", "", "");
    assert_eq!((status, &serde_json::from_str::<Value>(&models).unwrap()["data"][0]["id"]), (200, &json!("calls")));

    let (status, body) = ask(to, "POST", "/v1/chat/completions", "", &chat(json!({})));
    assert_eq!(status, 200, "{body}");
    let whole: Value = serde_json::from_str(&body).unwrap();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap().to_string();
    assert!(!text.is_empty());
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    assert!(whole["usage"]["prompt_tokens"].as_u64().unwrap() > 5);

    let more = json!({"stream": true, "stream_options": {"include_usage": true}, "stop": ["never written"]});
    let (_, body) = ask(to, "POST", "/v1/chat/completions", "", &chat(more));
    let events: Vec<&str> = body.split("\n\n").filter_map(|e| e.strip_prefix("data: ")).collect();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let chunks: Vec<Value> = events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    let pieces = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str());
    assert_eq!(pieces.collect::<String>(), text);
    assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);

    let (status, body) = ask(to, "POST", "/v1/completions", "", r#"{"prompt": "Once", "max_tokens": 3}"#);
    let plain: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &plain["choices"][0]["finish_reason"]), (200, &json!("length")), "{body}");

    // A text that stops it is not in the answer.
    let (_, body) = ask(to, "POST", "/v1/chat/completions", "", &chat(json!({"stop": text[3..8].to_string()})));
    let cut: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(cut["choices"][0]["message"]["content"], text[..3].to_string());
}

#[test]
fn what_cannot_be_answered_is_refused_in_the_clients_own_form() {
    let to = served();
    for (method, path, headers, body, status) in [
        ("POST", "/v1/chat/completions", "", "{not json", 400),
        ("POST", "/v1/chat/completions", "", r#"{"messages": []}"#, 400),
        ("POST", "/v1/chat/completions", "Origin: http://evil.example\r\n", "{}", 403),
        ("GET", "/v1/chat/completions", "", "", 405),
        ("GET", "/v1/embeddings", "", "", 404),
    ] {
        let (got, body) = ask(to, method, path, headers, body);
        assert_eq!(got, status, "{path}: {body}");
        let value: Value = serde_json::from_str(&body).unwrap();
        assert!(!value["error"]["message"].as_str().unwrap().is_empty());
    }
}
