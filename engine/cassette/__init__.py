"""Record and replay: what an outside system once answered, kept as files that people can read and diff.

`fixture` is a folder of pictures and error twins under names that are computed from what was asked;
`cassette` is one vcrpy file with whole interactions, matched by method, path and JSON body.
Recording happens at a handler's own seam: nothing in the process is patched, so any number of calls may be
in flight and nothing else is recorded. No key, cookie or date ever goes into either. `vcr` itself is
imported when a cassette is read or written, never by importing this package.
"""
