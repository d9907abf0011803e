/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Bits of tree[thread ID]; filters/children.py has the same. */

/* Its hits count. */
#define IN_TREE 1
/* Joins the tree with its next execve(2). */
#define JOINS_AT_EXEC 2
/* Its children get JOINS_AT_EXEC. */
#define SPAWNS 4
/* It is exiting; its hits still count. */
#define EXITS 8
