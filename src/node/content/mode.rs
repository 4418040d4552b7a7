//! What kinds of content there are: as manifests name them (`metadata.appmode`), and what each needs to run. Pure.

/// A kind of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Shiny for R.
    Shiny,
    /// R Markdown with a Shiny runtime.
    RmdShiny,
    /// R Markdown, rendered.
    RmdStatic,
    /// Files.
    Static,
    /// plumber.
    Api,
    /// A notebook, rendered.
    JupyterStatic,
    /// WSGI: Flask and the like.
    PythonApi,
    /// Dash.
    PythonDash,
    /// Streamlit.
    PythonStreamlit,
    /// Bokeh.
    PythonBokeh,
    /// ASGI: FastAPI and the like.
    PythonFastapi,
    /// Quarto with a Shiny runtime.
    QuartoShiny,
    /// Quarto, rendered.
    QuartoStatic,
    /// Shiny for Python.
    PythonShiny,
    /// A notebook as a dashboard.
    JupyterVoila,
    /// Gradio.
    PythonGradio,
    /// Panel.
    PythonPanel,
    /// Node.js.
    Nodejs,
}

/// How content of a mode comes to browsers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As it is in the bundle.
    Files,
    /// By processes that answer requests.
    Workers,
    /// As files that a process makes of the bundle once in a while.
    Rendering,
}

/// Whose programs run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Nobody's.
    None,
    /// R.
    R,
    /// Python.
    Python,
    /// Node.js.
    Nodejs,
    /// Quarto, with one of the others or none.
    Quarto,
}

impl Mode {
    /// Every mode with its number in R's legacy API and its name.
    pub const ALL: [(Self, u8, &'static str); 18] = [
        (Self::Shiny, 1, "shiny"),
        (Self::RmdShiny, 2, "rmd-shiny"),
        (Self::RmdStatic, 3, "rmd-static"),
        (Self::Static, 4, "static"),
        (Self::Api, 5, "api"),
        (Self::JupyterStatic, 7, "jupyter-static"),
        (Self::PythonApi, 8, "python-api"),
        (Self::PythonDash, 9, "python-dash"),
        (Self::PythonStreamlit, 10, "python-streamlit"),
        (Self::PythonBokeh, 11, "python-bokeh"),
        (Self::PythonFastapi, 12, "python-fastapi"),
        (Self::QuartoShiny, 13, "quarto-shiny"),
        (Self::QuartoStatic, 14, "quarto-static"),
        (Self::PythonShiny, 15, "python-shiny"),
        (Self::JupyterVoila, 16, "jupyter-voila"),
        (Self::PythonGradio, 17, "python-gradio"),
        (Self::PythonPanel, 18, "python-panel"),
        (Self::Nodejs, 20, "nodejs"),
    ];

    /// As manifests write it.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(mode, ..)| *mode == self).map_or("unknown", |(_, _, name)| name)
    }

    /// Its number in R's legacy API.
    pub fn number(self) -> u8 {
        Self::ALL.iter().find(|(mode, ..)| *mode == self).map_or(0, |(_, number, _)| *number)
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, _, name)| *name == text).map(|(mode, ..)| *mode)
    }

    /// How it comes to browsers.
    pub fn way(self) -> Way {
        match self {
            Self::Static => Way::Files,
            Self::RmdStatic | Self::JupyterStatic | Self::QuartoStatic => Way::Rendering,
            _ => Way::Workers,
        }
    }

    /// Whose programs run it.
    pub fn language(self) -> Language {
        match self {
            Self::Static => Language::None,
            Self::Shiny | Self::RmdShiny | Self::RmdStatic | Self::Api => Language::R,
            Self::Nodejs => Language::Nodejs,
            Self::QuartoShiny | Self::QuartoStatic => Language::Quarto,
            _ => Language::Python,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_each_modes_own() {
        for (mode, number, name) in Mode::ALL {
            assert_eq!((Mode::parse(name), mode.number(), mode.as_str()), (Some(mode), number, name));
        }
        let numbers: std::collections::HashSet<_> = Mode::ALL.iter().map(|(_, number, _)| number).collect();
        assert_eq!(numbers.len(), Mode::ALL.len());
        assert_eq!(Mode::parse("Shiny"), None);
    }
}
