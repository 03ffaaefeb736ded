"""The app in the browser: sounds on a shelf, and edits of them.

May import `generation`, `report.embed` and below. Start with `desk`, the state and its actions, which know no
browser; `page` shows it, by the HTML in `templates` and the CSS and JavaScript in `assets`.
"""
