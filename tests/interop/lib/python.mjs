// The Python of the suite's own virtual environment.
import path from 'node:path';

export const HERE = path.resolve(import.meta.dirname, '..');
export const PYTHON = path.join(HERE, '.venv/bin/python');
export const PYTHON_ENV = { PYTHONUNBUFFERED: '1', PYTHONDONTWRITEBYTECODE: '1' };
