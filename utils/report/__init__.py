"""Reports of results: tables, pages for a browser, pictures of training logs; `python -m utils.report` makes them."""
