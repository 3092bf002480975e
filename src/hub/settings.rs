//! What of the environment decides where the hub is, who asks, and where its files are kept. As `huggingface_hub` reads it.

use std::ffi::OsString;
use std::path::PathBuf;

/// Where the hub is when nobody says otherwise.
pub const ENDPOINT: &str = "https://huggingface.co";

/// All that is known of the hub before it is asked.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Without a slash at its end.
    pub endpoint: String,
    pub token: Option<String>,
    /// Where the token comes from, to be named in an error.
    pub token_from: String,
    pub offline: bool,
    /// The folder with `models--…` and `datasets--…`; `None`: not known.
    pub cache: Option<PathBuf>,
    /// A file of certificates to trust in place of the built-in ones.
    pub certificates: Option<PathBuf>,
}

impl std::fmt::Debug for Settings {
    // A token is never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Settings {{ endpoint: {}, token: {}, offline: {} }}",
            self.endpoint,
            self.token.is_some(),
            self.offline
        )
    }
}

impl Settings {
    /// From this process's environment.
    pub fn of_environment() -> Self {
        Self::of(&|key| std::env::var_os(key))
    }

    /// From any environment: `HF_ENDPOINT`, `HF_TOKEN` or the token file, `HF_HUB_OFFLINE`, `HF_HUB_CACHE`, `HF_HOME`.
    pub fn of(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let set = |key: &str| variable(key).filter(|v| !v.is_empty());
        let text = |key: &str| set(key).and_then(|v| v.into_string().ok()).map(|v| v.trim().to_string());
        let path = |key: &str| set(key).map(PathBuf::from);
        let yes = |key: &str| {
            text(key).is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
        };
        let home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|p| p.join("huggingface")))
            .or_else(|| path("HOME").map(|p| p.join(".cache").join("huggingface")));
        let file = path("HF_TOKEN_PATH").or_else(|| home.as_ref().map(|h| h.join("token")));
        let of_file = || {
            let text = std::fs::read_to_string(file.as_ref()?).ok()?;
            Some((text.trim().to_string(), file.as_ref()?.display().to_string()))
        };
        let found = text("HF_TOKEN")
            .map(|t| (t, "HF_TOKEN".to_string()))
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN").map(|t| (t, "HUGGING_FACE_HUB_TOKEN".to_string())))
            .or_else(of_file)
            // What cannot stand in a header is no token.
            .filter(|(t, _)| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic()));
        let (token, token_from) = found.map_or((None, String::new()), |(t, from)| (Some(t), from));
        Self {
            endpoint: text("HF_ENDPOINT").map_or(ENDPOINT.to_string(), |e| e.trim_end_matches('/').to_string()),
            token,
            token_from,
            offline: yes("HF_HUB_OFFLINE") || yes("TRANSFORMERS_OFFLINE"),
            cache: path("HF_HUB_CACHE").or_else(|| home.map(|h| h.join("hub"))),
            certificates: path("SSL_CERT_FILE").or_else(|| path("REQUESTS_CA_BUNDLE")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Settings {
        Settings::of(&|key| variables.iter().find(|(k, _)| *k == key).map(|(_, v)| OsString::from(v)))
    }

    #[test]
    fn the_variables_mean_what_they_mean_to_huggingface_hub() {
        let s = of(&[("HOME", "/h")]);
        assert_eq!((s.endpoint.as_str(), s.offline, s.token), (ENDPOINT, false, None));
        assert_eq!(s.cache, Some("/h/.cache/huggingface/hub".into()));
        assert_eq!(of(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]).cache, Some("/x/huggingface/hub".into()));
        assert_eq!(of(&[("HF_HOME", "/hf"), ("HOME", "/h")]).cache, Some("/hf/hub".into()));
        assert_eq!(of(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]).cache, Some("/c".into()));
        assert_eq!(of(&[("HF_ENDPOINT", "http://localhost:1/")]).endpoint, "http://localhost:1");
        for (value, offline) in [("1", true), ("true", true), ("ON", true), ("0", false), ("", false)] {
            assert_eq!(of(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
    }

    #[test]
    fn the_token_is_the_variable_or_the_file_of_a_login() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        let home = dir.path().to_str().unwrap();
        let s = of(&[("HF_HOME", home)]);
        assert_eq!(s.token.as_deref(), Some("hf_file"));
        assert!(s.token_from.ends_with("/token"));
        assert_eq!(of(&[("HF_HOME", home), ("HF_TOKEN", "hf_env")]).token.as_deref(), Some("hf_env"));
        assert_eq!(of(&[("HF_TOKEN", "two\nlines")]).token, None);
        assert!(!format!("{s:?}").contains("hf_file"));
    }
}
