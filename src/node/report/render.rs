//! Rendering: a document becomes pages, in the sandbox content runs in. Its source stays where it was; what was written is
//! kept, and every node shows it.

use std::fs::File;

use crate::node::blob::Spooled;
use crate::node::content::manifest::{Hides, Manifest};
use crate::node::content::mode::Mode;
use crate::node::content::prepare::{Ground, environment, ground};
use crate::node::content::settings::Settings;
use crate::node::content::{account, shared};
use crate::node::content::{bundle, python};
use crate::node::parts::{Parts, keep_and_name};
use crate::node::sandbox::{Bounds, Run};
use crate::node::store::{BundleRow, ContentRow, NewRendering};
use crate::runtime::clock;

/// The document is copied to where it may be written to. What was written, and what pages show beside it, comes out; never
/// what was only read, and nothing hidden. `$root` and `$main`: the folder that is shown, and what of it comes first.
const BEFORE: &str = "set -e; mkdir doc; cp -R /app/. doc; cd doc; rm -f manifest.json; sleep 0.02; touch ../begun; sleep 0.02; \
     root=.; main=; exec 3>&1 1>&2; ";
const AFTER: &str = r#"
[ -n "$main" ] || read -r main < ../main; [ -n "$root" ] && [ "$root" != . ] || { root=.; [ ! -s ../root ] || read -r root < ../root; }
cd "$root"; mkdir -p /work/out; printf '%s' "$main" > /work/out/main
find . \( -name '.*' ! -name . -o -name '*_cache' -o -name renv -o -name packrat -o -name __pycache__ \) -prune -o -type f \( -newer /work/begun \
  -o -iname '*.png' -o -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.gif' -o -iname '*.svg' -o -iname '*.webp' -o -iname '*.ico' \
  -o -iname '*.css' -o -iname '*.js' -o -iname '*.woff' -o -iname '*.woff2' -o -iname '*.ttf' -o -iname '*.mp4' -o -iname '*.pdf' \) -print0 > /work/list
exec 1>&3
{ tar --format=gnu --sort=name --owner=0 --group=0 --hard-dereference --transform 's,^\./,files/,' -cf - -C /work/out main -C "$PWD" --null \
  --no-recursion -T /work/list || : > /work/broken; } | gzip -1
[ ! -e /work/broken ]"#;

/// A notebook is run, and shown as one page.
const JUPYTER: &str = r#"
stem=$(basename "$entry" .ipynb); folder=$(dirname "$entry")
"$python" -m nbconvert --execute --to html --HTMLExporter.embed_images=True --ExecutePreprocessor.kernel_name=python3 \
  --ExecutePreprocessor.timeout=-1 $more --output-dir "$folder" --output "$stem" "$entry" 3>&-
main="$folder/$stem.html""#;

/// A document of R Markdown, or the site it is the front page of.
const RMD: &str = r#"
"$r" --no-save --no-restore --slave -e '
entry <- Sys.getenv("entry"); top <- normalizePath(".")
below <- function(path) { path <- normalizePath(path); substring(path, nchar(top) + 2L) }
site <- if (basename(entry) == "index.Rmd" && dirname(entry) == ".") rmarkdown::site_generator(".")
if (is.null(site)) {
  out <- rmarkdown::render(entry, envir = new.env(), quiet = TRUE)
  writeLines(below(out), "../main")
} else {
  rmarkdown::render_site(".", envir = new.env(), quiet = TRUE)
  writeLines(below(site$output_dir), "../root")
  writeLines("index.html", "../main")
}' 3>&-"#;

/// A document of Quarto, or the project around it.
const QUARTO: &str = r#"
export QUARTO_PYTHON="$python" QUARTO_R="$r" DENO_DIR=/tmp/deno XDG_CACHE_HOME=/tmp/cache XDG_DATA_HOME=/tmp/data
rm -rf _site _book; project=
for file in _quarto.yml _quarto.yaml; do [ ! -f "$file" ] || project=$file; done
if [ -n "$project" ]; then
  "$quarto" render . --no-clean 3>&-
  for root in $(sed -n 's/^ *output-dir: *//p' "$project" | head -n 1) _site _book .; do [ ! -d "$root" ] || break; done
  main=index.html
else
  "$quarto" render "$entry" 3>&-
fi
if [ -z "$main" ] || [ -z "$(find "$root/$main" -newer /work/begun 2>/dev/null)" ]; then
  main=
  for ending in html pdf docx; do
    [ -n "$main" ] || [ ! -f "$root/${entry%.*}.$ending" ] || main=${entry%.*}.$ending
  done
  [ -n "$main" ] || main=$(cd "$root" && find . -maxdepth 2 -name '*.html' -newer /work/begun | sort | head -n 1)
fi"#;

/// What is run for a kind, and what it is given.
fn script(manifest: &Manifest, ground: &Ground) -> Option<(String, Vec<(&'static str, String)>)> {
    let entry = manifest.entrypoint.clone()?;
    let (middle, mut environment) = match ground.mode {
        Mode::JupyterStatic => {
            let more = match manifest.hides {
                Hides::Nothing => "",
                Hides::Tagged => {
                    "--TagRemovePreprocessor.enabled=True --TagRemovePreprocessor.remove_input_tags={'hide_input'}"
                }
                Hides::All => "--no-input",
            };
            let own = [("JUPYTER_RUNTIME_DIR", "/tmp/jupyter"), ("IPYTHONDIR", "/tmp/ipython"), ("more", more)];
            (JUPYTER, own.map(|(name, value)| (name, value.to_owned())).to_vec())
        }
        Mode::RmdStatic => (RMD, Vec::new()),
        Mode::QuartoStatic => (QUARTO, Vec::new()),
        _ => return None,
    };
    environment.push(("entry", entry));
    for (name, at) in [("python", &ground.python), ("r", &ground.r), ("quarto", &ground.quarto)] {
        environment.push((name, at.clone()));
    }
    environment.extend(ground.variables.iter().cloned());
    Some((format!("{BEFORE}{middle}{AFTER}"), environment))
}

/// A rendering that is not yet written down.
#[derive(Debug)]
pub struct Rendered {
    output: Spooled,
    main: String,
    /// Microseconds.
    took: i64,
}

/// Renders a bundle. `say`: what is said meanwhile.
///
/// # Errors
/// Why there is nothing to show, in a sentence.
pub async fn render(
    parts: &Parts,
    content: &ContentRow,
    bundle: &BundleRow,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Rendered, String> {
    let rendered = made(parts, content, bundle, say).await;
    let mode = serde_json::from_str(&bundle.manifest).ok().and_then(|manifest: Manifest| manifest.mode());
    parts.metrics.rendered(mode.map_or("other", Mode::as_str), rendered.is_ok());
    rendered
}

async fn made(
    parts: &Parts,
    content: &ContentRow,
    bundle: &BundleRow,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Rendered, String> {
    let ground = ground(parts, content, bundle, say).await?;
    python::note(parts, bundle.number, &ground.folders).await?;
    let Some((script, own)) = script(&ground.manifest, &ground) else {
        return Err(format!("content of the kind `{}` is not rendered", ground.manifest.mode));
    };
    let settings = &parts.settings.content;
    let wanted = Settings::read(&content.settings);
    let outbound = wanted.outbound(settings);
    let (memory, cpu) = wanted.shares(settings);
    let run = Run {
        script: &script,
        environment: environment(parts, content, ground.mode, &own).await?,
        readable: &settings.readable,
        folders: shared::with(parts, ground.folders).await?,
        account: account::of(parts, content).await?,
        door: None,
        outbound: outbound.as_ref(),
        bounds: Bounds { time: settings.render_timeout, memory, cpu, disk: settings.disk_max },
    };
    say(&format!("Rendering {}", ground.manifest.entrypoint.as_deref().unwrap_or_default()));
    let begun = clock::now();
    let nothing = File::open("/dev/null").map_err(|e| e.to_string())?;
    let output = run.run(nothing, &parts.spool, say).await.map_err(|why| format!("It cannot be rendered: {why}"))?;
    let took = i64::try_from(begun.elapsed().as_micros()).unwrap_or(i64::MAX);
    let unpacked_max = settings.unpacked_bytes_max;
    let examined = tokio::task::spawn_blocking(move || {
        let file = File::open(output.path()).map_err(|e| e.to_string())?;
        bundle::rendered(file, unpacked_max).map(|main| (main, output))
    });
    let (main, output) = examined.await.map_err(|e| e.to_string())??;
    Ok(Rendered { output, main, took })
}

impl Rendered {
    /// Keeps it, and writes it down; its number. `shows`: it is what the content shows from now on.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub async fn keep(
        self,
        parts: &Parts,
        content: &ContentRow,
        bundle: &BundleRow,
        shows: bool,
        who: &str,
    ) -> Result<i64, String> {
        let Self { output, main, took } = self;
        let sha256 = output.digest().to_string();
        let new = NewRendering {
            content_id: content.id,
            bundle: bundle.number,
            sha256: &sha256,
            size: i64::try_from(output.size()).unwrap_or(i64::MAX),
            main: &main,
            took,
            created_by: who,
        };
        let kept =
            keep_and_name!(parts, bundles, &[&output], anew => parts.store.create_rendering(new, shows, anew).await);
        kept.await.map_err(|failure| failure.message().to_owned())
    }
}
