//! With the feature `cuda`: compile `src/ops/kernels/*.cu`, each to a fat binary that the program carries.
//!
//! A fat binary holds PTX for compute 8.0, which any newer card's driver can translate, and machine code for Hopper.

use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const KERNELS: &str = "src/ops/kernels";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo:rerun-if-changed={KERNELS}");
    for name in ["CUDA_HOME", "CUDA_PATH", "PATH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let nvcc = nvcc();
    let mut sources: Vec<PathBuf> =
        std::fs::read_dir(KERNELS).map(|d| d.filter_map(|e| Some(e.ok()?.path())).collect()).unwrap_or_default();
    sources.retain(|p| p.extension().is_some_and(|e| e == "cu"));
    sources.sort();
    let work: Vec<_> = sources.iter().map(|source| (source, start(&nvcc, source, &out))).collect();
    for (source, mut child) in work {
        match child.wait() {
            Ok(status) if status.success() => {}
            _ => fail(&format!("nvcc could not compile {}", source.display())),
        }
    }
    let images: String = sources.iter().map(|s| format!("include_bytes!({:?}),\n", image(s, &out))).collect();
    let list = format!("const IMAGES: &[&[u8]] = &[\n{images}];\n");
    if let Err(e) = std::fs::write(out.join("images.rs"), list) {
        fail(&format!("cannot write to {}: {e}", out.display()));
    }
}

fn image(source: &Path, out: &Path) -> PathBuf {
    out.join(source.file_name().unwrap_or_default()).with_extension("fatbin")
}

fn start(nvcc: &Path, source: &Path, out: &Path) -> std::process::Child {
    let mut command = Command::new(nvcc);
    command
        .args(["-fatbin", "-O3", "-std=c++17"])
        .args(["-gencode", "arch=compute_80,code=compute_80", "-gencode", "arch=compute_90a,code=sm_90a"])
        .arg(source)
        .arg("-o")
        .arg(image(source, out));
    match command.spawn() {
        Ok(child) => child,
        Err(e) => fail(&format!("cannot start {}: {e}", nvcc.display())),
    }
}

/// The compiler of `CUDA_HOME` or `CUDA_PATH`, of the PATH, or of the usual place.
fn nvcc() -> PathBuf {
    let set = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(|d| PathBuf::from(d).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = set.chain(std::env::split_paths(&path)).chain([PathBuf::from("/usr/local/cuda/bin")]);
    let found = places.map(|d| d.join("nvcc")).find(|p| p.is_file());
    found.unwrap_or_else(|| {
        fail(
            "the feature `cuda` needs NVIDIA's compiler, nvcc 12 or newer. Install the CUDA toolkit, or let\n  \
             scripts/cuda-toolkit.sh cuda && source cuda/env.sh\nlay it in the folder cuda (no card needed), and build again",
        )
    })
}

fn fail(why: &str) -> ! {
    eprintln!("\n{why}\n");
    exit(1)
}
