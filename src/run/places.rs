//! Where finetop keeps what is not a run: a person's settings, its state, and its control sockets.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::files::failed;
use crate::{Error, Result};

/// A socket's path has to fit in `sockaddr_un`: 108 bytes with the closing zero.
const MAX_SOCKET_PATH: usize = 107;
/// `/` and `0123456789abcdef.sock`, with room for `-PID`.
const SOCKET_NAME: usize = 1 + 21 + 11;

/// `$XDG_STATE_HOME/finetop`, else `~/.local/state/finetop`. None without a home.
pub fn state_home() -> Option<PathBuf> {
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("finetop"))
}

/// `$XDG_CONFIG_HOME/finetop`, else `~/.config/finetop`. None without a home.
pub fn config_home() -> Option<PathBuf> {
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|config| config.join("finetop"))
}

/// The folder for control sockets, made if needed: `$XDG_RUNTIME_DIR/finetop`, else `finetop-UID` in the
/// temporary folder. It is always a real folder of this user that nobody else may enter.
///
/// # Errors
/// When neither can be had; the trainer then runs without a socket.
pub fn socket_folder() -> Result<PathBuf> {
    let runtime = absolute("XDG_RUNTIME_DIR").map(|dir| dir.join("finetop"));
    let uid = rustix::process::getuid().as_raw();
    let temporary = std::env::temp_dir().join(format!("finetop-{uid}"));
    let mut first_error = None;
    for folder in runtime.into_iter().chain([temporary, PathBuf::from(format!("/tmp/finetop-{uid}"))]) {
        match private_folder(&folder) {
            Ok(()) => return Ok(folder),
            Err(e) => first_error.get_or_insert(e),
        };
    }
    Err(first_error.unwrap_or_else(|| Error::new("no folder for the control socket")))
}

/// Makes `folder` (0700) or accepts it as it is, if it is ours alone and short enough for a socket in it.
fn private_folder(folder: &Path) -> Result<()> {
    if folder.as_os_str().len() + SOCKET_NAME > MAX_SOCKET_PATH {
        return Err(Error::new(format!("path too long for a socket (at most {MAX_SOCKET_PATH} bytes)"))
            .at(folder.display())
            .next("set XDG_RUNTIME_DIR to a shorter path"));
    }
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(failed("make the folder for the control socket", folder)(e)),
    }
    // Of the name itself: a link to somewhere else is not ours.
    let meta = std::fs::symlink_metadata(folder).map_err(failed("read", folder))?;
    let ours = meta.is_dir() && meta.uid() == rustix::process::getuid().as_raw() && meta.mode() & 0o077 == 0;
    if !ours {
        return Err(Error::new("this folder is open to others, or not yours; no socket is put there")
            .at(folder.display())
            .next("delete it or `chmod 700` it, or set XDG_RUNTIME_DIR to a folder of your own"));
    }
    Ok(())
}

/// An environment variable's path; a relative one counts as unset, as the XDG specification has it.
fn absolute(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|p| p.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_folder_is_private_and_an_open_one_or_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("f");
        private_folder(&folder).unwrap();
        assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        private_folder(&folder).unwrap();

        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(private_folder(&link).is_err());

        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(private_folder(&folder).unwrap_err().to_string().contains("open to others"));
    }

    #[test]
    fn a_folder_too_deep_for_a_socket_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(90));
        assert!(private_folder(&deep).unwrap_err().to_string().contains("too long"));
    }
}
