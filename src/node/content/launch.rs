//! How each kind of content is started, and what its requests look like then. Pure.

use super::manifest::Manifest;
use super::mode::Mode;

/// Where things are, as the program sees it.
#[derive(Clone, Debug)]
pub struct Places<'a> {
    /// The unpacked bundle.
    pub app: &'a str,
    /// The socket to listen on.
    pub socket: &'a str,
    /// The Python that has what the content requires.
    pub python: &'a str,
    /// R.
    pub r: &'a str,
    /// Node.js.
    pub nodejs: &'a str,
    /// The path browsers see, without a slash at the end: `/content/GUID`.
    pub prefix: &'a str,
}

/// A start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Program and arguments; `{port}` stands for a port, where one is wanted.
    pub program: Vec<String>,
    /// Beside what all content gets.
    pub environment: Vec<(&'static str, String)>,
    /// It listens on a port, because it cannot listen on a socket.
    pub wants_port: bool,
}

/// What requests look like to a program of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// They keep the path browsers see.
    pub keeps_prefix: bool,
    /// They name that path in `SCRIPT_NAME` (PEP 3333, as gunicorn takes it).
    pub names_script: bool,
    /// A browser's all go to one process, which holds its session.
    pub is_bound: bool,
    /// It would refuse other hosts than those it is told of when it begins, and browsers may call this server by several. So it
    /// takes all, is reached only through us, and we refuse pages of other sites.
    pub is_guarded: bool,
    /// Its pages are Shiny's, which come back after a lost connection with the help of a script.
    pub is_shiny: bool,
}

/// What requests look like to a program of a kind.
pub fn style(mode: Mode) -> Style {
    Style {
        keeps_prefix: matches!(mode, Mode::PythonApi | Mode::PythonBokeh | Mode::JupyterVoila),
        names_script: mode == Mode::PythonApi,
        is_bound: !matches!(mode, Mode::PythonApi | Mode::PythonFastapi | Mode::Api),
        is_guarded: matches!(mode, Mode::PythonStreamlit | Mode::PythonBokeh | Mode::PythonPanel),
        is_shiny: matches!(mode, Mode::Shiny | Mode::RmdShiny | Mode::QuartoShiny | Mode::PythonShiny),
    }
}

/// What content of a kind needs that its publisher may not have written down.
pub fn requirements(mode: Mode) -> &'static [&'static str] {
    match mode {
        Mode::PythonFastapi => &["uvicorn", "websockets"],
        Mode::PythonShiny => &["shiny"],
        Mode::PythonApi => &["gunicorn"],
        Mode::PythonDash => &["dash", "gunicorn"],
        Mode::PythonStreamlit => &["streamlit"],
        Mode::PythonBokeh => &["bokeh"],
        Mode::PythonPanel => &["panel"],
        Mode::PythonGradio => &["gradio"],
        Mode::JupyterVoila => &["voila", "ipykernel"],
        Mode::JupyterStatic => &["nbconvert", "ipykernel"],
        _ => &[],
    }
}

/// A module that holds an object, or an object's server, for gunicorn.
const WSGI: &str = "\
import importlib, sys
from gunicorn.app.base import BaseApplication
sys.path.insert(0, '.')
entry, socket = sys.argv[1:3]
module, _, name = entry.partition(':')
class Server(BaseApplication):
    def load_config(self):
        for key, value in {'bind': 'unix:' + socket, 'workers': 1, 'threads': 16, 'timeout': 0, 'umask': 0o117,
                           'worker_tmp_dir': '/dev/shm', 'forwarded_allow_ips': '*'}.items():
            self.cfg.set(key, value)
    def load(self):
        found = importlib.import_module(module)
        for part in (name or 'app').split('.'):
            found = getattr(found, part)
        is_dash = any(part.__module__.startswith('dash.') for part in type(found).__mro__)
        return found.server if is_dash or not callable(found) else found
Server().run()
";

/// Gradio, whether its file launches by itself or leaves that to us.
const GRADIO: &str = "\
import importlib, os, sys
sys.path.insert(0, '.')
import gradio
launch = gradio.Blocks.launch
own = dict(server_name='127.0.0.1', server_port=int(os.environ['PORT']), root_path=os.environ['GRADIO_ROOT_PATH'],
           share=False, inbrowser=False, prevent_thread_lock=False)
gradio.Blocks.launch = lambda self, *_, **told: launch(self, **{**told, **own})
module, _, name = sys.argv[1].partition(':')
found = importlib.import_module(module)
candidates = [getattr(found, name)] if name else [getattr(found, n, None) for n in ('demo', 'app')] + list(vars(found).values())
demo = next((c for c in candidates if isinstance(c, gradio.Blocks)), None)
demo.launch() if demo else sys.exit(f'{module} makes no gradio.Blocks or gradio.Interface')
";

/// A document with a Shiny runtime, where what is made of it can be beside it: files are copied, folders are linked.
const RMD: &str = "\
own <- file.path(tempdir(), 'app')
dir.create(own)
all <- list.files('.', all.files = TRUE, no.. = TRUE)
isLinked <- dir.exists(all) & !grepl('_(files|cache)$', all)
if (any(isLinked)) file.symlink(file.path(getwd(), all[isLinked]), file.path(own, all[isLinked])) -> done
file.copy(all[!isLinked], own, recursive = TRUE, copy.mode = FALSE) -> done
setwd(own)
rmarkdown::run(entry, default_file = basename(entry), auto_reload = FALSE, shiny_args = list(port = socket, launch.browser = FALSE))
";

/// An API; a file `entrypoint.R` makes its own.
const PLUMBER: &str = "\
api <- if (tolower(basename(entry)) == 'entrypoint.r') plumber::plumb(dir = dirname(entry)) else plumber::plumb(entry)
docs <- requireNamespace('swagger', quietly = TRUE)
plumber::pr_run(api, host = '127.0.0.1', port = as.integer(Sys.getenv('PORT')), docs = docs, quiet = TRUE)
";

/// How content is started; `None`: no process answers for it.
pub fn launch(mode: Mode, manifest: &Manifest, places: &Places<'_>) -> Option<Launch> {
    let Places { socket, python, r, nodejs, prefix, .. } = *places;
    let entry = manifest.entrypoint.as_deref().unwrap_or("app");
    let module = entry.strip_suffix(".py").unwrap_or(entry);
    let object = if module.contains(':') { module.to_owned() } else { format!("{module}:app") };
    // Of a module its file.
    let file = match module.split_once(':') {
        Some((module, _)) => format!("{}.py", module.replace('.', "/")),
        None => format!("{}.py", module.replace('.', "/")),
    };
    let strings = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let by_socket = |program: &[&str]| Launch { program: strings(program), environment: Vec::new(), wants_port: false };
    let by_port = |program: &[&str]| Launch { wants_port: true, ..by_socket(program) };
    let r_says = |code: &str| strings(&[r, "--no-save", "--no-restore", "--slave", "-e", code]);
    // R reads the mask of a socket's file from an attribute of its path (httpuv).
    let r_socket = format!("structure('{socket}', mask = strtoi('0117', 8))");
    Some(match mode {
        Mode::PythonFastapi => by_socket(&[
            python,
            "-m",
            "uvicorn",
            &object,
            "--uds",
            socket,
            "--root-path",
            prefix,
            "--forwarded-allow-ips",
            "*",
        ]),
        Mode::PythonShiny => by_socket(&[
            python,
            "-m",
            "uvicorn",
            &object,
            "--uds",
            socket,
            "--forwarded-allow-ips",
            "*",
            // A session whose browser is lost is not read from while as much of it is kept as may be; the node itself looks
            // whether browsers are there.
            "--ws-ping-timeout",
            "86400",
        ]),
        Mode::PythonApi => by_socket(&[python, "-c", WSGI, &object, socket]),
        Mode::PythonDash => Launch {
            environment: vec![
                ("DASH_REQUESTS_PATHNAME_PREFIX", format!("{prefix}/")),
                ("DASH_ROUTES_PATHNAME_PREFIX", "/".to_owned()),
            ],
            ..by_socket(&[python, "-c", WSGI, &object, socket])
        },
        Mode::PythonStreamlit => by_port(&[
            python,
            "-m",
            "streamlit",
            "run",
            &file,
            "--server.port",
            "{port}",
            "--server.address",
            "127.0.0.1",
            "--server.headless",
            "true",
            "--browser.gatherUsageStats",
            "false",
            "--server.fileWatcherType",
            "none",
            "--server.enableCORS",
            "false",
            "--server.enableXsrfProtection",
            "false",
        ]),
        Mode::PythonBokeh => by_port(&[
            python,
            "-m",
            "bokeh",
            "serve",
            &file,
            "--port",
            "{port}",
            "--address",
            "127.0.0.1",
            "--prefix",
            prefix,
            "--allow-websocket-origin",
            "*",
            "--use-xheaders",
        ]),
        Mode::PythonPanel => by_port(&[
            python,
            "-m",
            "panel",
            "serve",
            &file,
            "--port",
            "{port}",
            "--address",
            "127.0.0.1",
            "--allow-websocket-origin",
            "*",
            "--use-xheaders",
        ]),
        Mode::PythonGradio => Launch {
            environment: vec![
                ("GRADIO_ROOT_PATH", prefix.to_owned()),
                ("GRADIO_ANALYTICS_ENABLED", "False".to_owned()),
            ],
            ..by_port(&[python, "-c", GRADIO, module])
        },
        Mode::JupyterVoila => by_port(&[
            python,
            "-m",
            "voila",
            entry,
            "--port={port}",
            &format!("--base_url={prefix}/"),
            "--no-browser",
            "--Voila.ip=127.0.0.1",
        ]),
        Mode::Shiny => Launch {
            program: r_says(&format!("shiny::runApp('.', port = {r_socket}, launch.browser = FALSE)")),
            ..by_socket(&[])
        },
        Mode::RmdShiny => Launch {
            program: r_says(&format!("entry <- {}\nsocket <- {r_socket}\n{RMD}", r_text(entry))),
            ..by_socket(&[])
        },
        Mode::Api => Launch { program: r_says(&format!("entry <- {}\n{PLUMBER}", r_text(entry))), ..by_port(&[]) },
        Mode::Nodejs => by_port(&[nodejs, entry]),
        Mode::Static | Mode::RmdStatic | Mode::JupyterStatic | Mode::QuartoStatic | Mode::QuartoShiny => return None,
    })
}

/// A string of R, whatever is in it.
fn r_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::content::manifest::Hides;

    fn of(mode: Mode, entrypoint: &str) -> Launch {
        let manifest = Manifest {
            mode: mode.as_str().into(),
            entrypoint: Some(entrypoint.into()),
            r: None,
            python: None,
            requirements: None,
            has_parameters: false,
            hides: Hides::Nothing,
            packages: Vec::new(),
            manages_r: None,
        };
        let places =
            Places { app: "/app", socket: "/run/s", python: "/env/p", r: "R", nodejs: "node", prefix: "/content/g" };
        launch(mode, &manifest, &places).unwrap()
    }

    #[test]
    fn entrypoints_become_what_each_program_wants() {
        assert_eq!(of(Mode::PythonFastapi, "app").program[3], "app:app");
        assert_eq!(of(Mode::PythonFastapi, "pkg.main:api").program[3], "pkg.main:api");
        assert_eq!(of(Mode::PythonShiny, "shiny.express.app:app_2e_py").program[3], "shiny.express.app:app_2e_py");
        assert_eq!(of(Mode::PythonStreamlit, "app").program[4], "app.py");
        assert_eq!(of(Mode::PythonStreamlit, "app.py").program[4], "app.py");
        let r = of(Mode::RmdShiny, "it's.Rmd").program;
        assert!(r[5].starts_with("entry <- 'it\\'s.Rmd'\n"), "{r:?}");
        assert!(of(Mode::Api, "plumber.R").wants_port && !of(Mode::Shiny, "").wants_port);
    }
}
