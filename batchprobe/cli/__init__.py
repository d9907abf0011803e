# SPDX-License-Identifier: Apache-2.0
"""The command line: arguments, signals, and one file per command. A thin skin on the library.

`app` makes the commands, `args` declares the options of `attach`, `usage` refuses wrong ones, and
`attach` runs it. Imports everything else; nothing imports it.
"""
