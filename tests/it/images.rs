use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::harness::source_root;

/// An image by its digest cannot be another one tomorrow. Its tag beside it is for people.
#[test]
fn every_image_is_named_by_its_digest() {
    let mut seen = 0;
    for (path, file) in files_that_name_images() {
        for image in file.images {
            assert!(is_by_digest(&image), "{}: {image}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} images are found");
}

/// What is renewed in one Dockerfile is renewed in the other.
#[test]
fn the_same_image_is_the_same_everywhere() {
    let mut all: BTreeMap<String, (PathBuf, String)> = BTreeMap::new();
    let mut compared = 0;
    for (path, file) in files_that_name_images() {
        let arguments = file.arguments.into_iter();
        for (name, value) in arguments.filter(|(_, value)| value.contains('@')) {
            let first = all
                .entry(name)
                .or_insert_with(|| (path.clone(), value.clone()));
            assert_eq!(first.1, value, "{}, {}", first.0.display(), path.display());
            compared += usize::from(first.0 != path);
        }
    }
    assert!(compared >= 2, "{compared} are compared");
}

#[test]
fn an_image_without_a_digest_is_found() {
    let digest = format!("debian:trixie@sha256:{}", "0".repeat(64));
    let all = format!(
        "# syntax=docker/dockerfile:1\nARG BASE=rust:1\nARG GOOD={digest}\nFROM ${{BASE}} AS build\n\
         from --platform=linux/arm64 $GOOD as base\nRUN --mount=type=bind,from=busybox,target=/x \\\n    true\n\
         COPY --from=build /a /\nCOPY --from=0 /b /\nCOPY --chown=1 --from=nginx:1 /c /\n\
         FROM base\nFROM ${{UNKNOWN}}\nFROM scratch\n"
    );
    let images = dockerfile(&all).images;
    let found: Vec<&str> = images.iter().map(String::as_str).collect();
    let expected = [
        "docker/dockerfile:1",
        "rust:1",
        &digest,
        "busybox",
        "nginx:1",
        "${UNKNOWN}",
    ];
    assert_eq!(found, expected);
    let found: Vec<&String> = images.iter().filter(|image| is_by_digest(image)).collect();
    assert_eq!(found, [&digest]);

    let manifest = "services:\n  a:\n    image: redis:7 # newest\n  b:\n  - image: \"x@sha256:12\"\n    images: none\n";
    let images = yaml(manifest).images;
    assert_eq!(images, ["redis:7", "x@sha256:12"]);
    assert!(!images.iter().any(|image| is_by_digest(image)));
}

/// The parts of a file that say what images are taken.
#[derive(Default)]
struct File {
    /// The images of others: what the file builds itself is none.
    images: Vec<String>,
    /// The defaults of its build arguments.
    arguments: BTreeMap<String, String>,
}

/// Tells if `image` ends with a whole SHA-256.
fn is_by_digest(image: &str) -> bool {
    let Some((name, digest)) = image.split_once("@sha256:") else {
        return false;
    };
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    !name.is_empty() && digest.len() == 64 && digest.bytes().all(is_hex)
}

/// Every Dockerfile and every YAML file of the repository, with what it names.
fn files_that_name_images() -> Vec<(PathBuf, File)> {
    fn add(folder: &Path, found: &mut Vec<(PathBuf, File)>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            if path.is_dir() {
                if !matches!(&*name, "target" | "node_modules" | ".git") {
                    add(&path, found);
                }
                continue;
            }
            let read = match () {
                () if name.to_lowercase().contains("dockerfile") => dockerfile,
                () if name.ends_with(".yaml") || name.ends_with(".yml") => yaml,
                () => continue,
            };
            let text = fs::read_to_string(&path).expect("text");
            found.push((path, read(&text)));
        }
    }
    let mut found = Vec::new();
    add(source_root(), &mut found);
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

fn dockerfile(text: &str) -> File {
    let mut file = File::default();
    let (mut stages, mut number) = (BTreeSet::new(), 0);
    let mut named = Vec::new();
    if let Some(syntax) = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("# syntax="))
    {
        named.push(syntax.trim().to_owned());
    }
    for line in text.replace("\\\n", " ").lines() {
        let mut words = line.split_whitespace();
        let instruction = words.next().unwrap_or_default().to_uppercase();
        let words: Vec<&str> = words.collect();
        let options = words.iter().take_while(|word| word.starts_with("--"));
        match instruction.as_str() {
            "ARG" => file.arguments.extend(words.iter().filter_map(|word| {
                let (name, value) = word.split_once('=')?;
                Some((name.to_owned(), value.trim_matches('"').to_owned()))
            })),
            "FROM" => {
                let words = &words[options.count()..];
                let image = words[0].trim_start_matches('$').trim_matches(['{', '}']);
                let of_argument = file.arguments.get(image).filter(|_| words[0] != image);
                named.push(of_argument.map_or(words[0], String::as_str).to_owned());
                // A stage may be named by its number, too.
                stages.insert(number.to_string());
                number += 1;
                stages.extend(words.get(2).map(|name| (*name).to_owned()));
            }
            "COPY" | "ADD" | "RUN" => {
                let settings = options.flat_map(|option| option.split(','));
                let from = settings.filter_map(|one| {
                    one.strip_prefix("--from=")
                        .or_else(|| one.strip_prefix("from="))
                });
                named.extend(from.map(str::to_owned));
            }
            _ => {}
        }
    }
    named.retain(|image| !stages.contains(image) && image != "scratch");
    file.images = named;
    file
}

/// Of YAML, as of Compose and Kubernetes, only `image` names one.
fn yaml(text: &str) -> File {
    let lines = text.lines().map(|line| line.trim_start_matches([' ', '-']));
    let images = lines.filter_map(|line| {
        let image = line.strip_prefix("image:")?.split_whitespace().next()?;
        Some(image.trim_matches(['"', '\'']).to_owned())
    });
    File {
        images: images.collect(),
        ..File::default()
    }
}
