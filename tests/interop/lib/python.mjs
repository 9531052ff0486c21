// Python interpreter of the suite's virtual environment.
import path from 'node:path';

export const HERE = path.resolve(import.meta.dirname, '..');
export const PYTHON = path.join(HERE, '.venv/bin/python');
export const PYTHON_ENV = { PYTHONUNBUFFERED: '1', PYTHONDONTWRITEBYTECODE: '1' };
