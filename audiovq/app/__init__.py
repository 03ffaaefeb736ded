"""The app in the browser: sounds on a shelf, and edits of them.

May import `library`, `generation`, pages of `report` and below. Start with `desk`, the state and its moves, which know
no browser; `actions` runs a move that the page asks for, `view` says what the page shows, `pack` makes a ZIP of the shelf,
`stored` keeps it on disk, `server` serves it all. The page is `templates/app.html`, its style and script are in `assets`; `app.js` is where the script
starts.
"""
